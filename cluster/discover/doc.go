// Package discover finds the addresses behind DNS names, again and again: a Resolver answers one
// question with the records' TTL, a Watch repeats it as a cluster was configured.
//
// The resolver is a stub resolver of its own since that of Go tells no TTLs. It reads resolv.conf and
// the hosts file, and reads them again when they change.
//
// Limitations: no DNSSEC, no DNS over TLS; of nsswitch.conf's sources it knows files, then dns.
package discover
