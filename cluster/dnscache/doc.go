// Package dnscache resolves names as traffic asks for them and keeps what they stand for while they are
// used: Envoy's dynamic forward proxy DNS cache. Caches have names, and those who use the same name
// share one.
//
// Limitations: there is no key-value store behind a cache, and addresses are not filtered.
package dnscache
