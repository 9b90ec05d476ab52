// Package abi is Proxy-Wasm as a guest sees it: the host functions of ABI 0.1.0, 0.2.0 and 0.2.1 and
// the callbacks that the host makes, with the statuses that Envoy 1.40 returns. SDKs trap on a status
// they don't expect, so a "more correct" one than Envoy's breaks plugins.
//
// A VM is used by one goroutine at a time; its owner, package wasmhost, sees to that. What a context
// id of the guest stands for is a Context, which the placement of the plugin implements; what belongs
// to the plugin as a whole is its Host. Nothing here blocks. Every function is registered for every
// ABI version, as no module can tell the difference but by failing to link.
package abi
