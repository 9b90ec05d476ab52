// Package network runs plugins as the network filter envoy.filters.network.wasm: they see a connection's
// bytes through taps on the wire.
//
// The goroutines that read and write a connection wait for the plugin's VM, each for its own: a
// connection has nothing else to do meanwhile. No lock of the connection is held while a VM is waited
// for.
//
// Limitations: what a plugin paused of the upstream's data goes on with the next data only, as in Envoy,
// which can't resume that direction either.
package network
