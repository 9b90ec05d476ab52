// Package wasmcli is `sidecar wasm`: a plugin developer's loop in one command, without a server.
//
// run loads a plugin in the very host that the proxy has, sends it requests that the command line or a
// file describes, and prints every callback, every call of the host, the result, memory and time. The
// streams are made up: between the plugin and the printed result there is no connection manager and no
// codec, so what those add to a request or refuse of it isn't there.
//
// inspect says what is in a module and whether it would be taken.
//
// Single importer: it is cmd/sidecar's, which has no packages of its own.
package wasmcli
