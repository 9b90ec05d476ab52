// Package dial opens connections to hosts: source addresses, keep-alive, the race between the
// addresses of one host, and failures in Envoy's words.
//
// Limitations: raw TCP and unix stream sockets only.
package dial
