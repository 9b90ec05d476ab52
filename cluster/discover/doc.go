// Package discover finds the hosts of clusters by DNS, with the answers' TTLs.
package discover
