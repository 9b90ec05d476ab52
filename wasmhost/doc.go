// Package wasmhost runs Proxy-Wasm plugins: it compiles their code, starts and configures VMs, binds
// streams to them, enforces limits and failure policies, and replaces what failed.
//
// Compile turns Envoy's PluginConfig into a Config and touches nothing. Host.Start makes a running
// Plugin of it, off the request path: an error there is what a management server hears as a NACK,
// while the plugin before it goes on. A placement (package plugin/http) makes a Stream for each stream
// of its traffic, and enters the stream's VM for each callback.
//
// Entering never blocks. A VM that is busy, or a process with enough guests running, makes the caller
// a Waiter in a FIFO; it is told when the VM is its own. Guests run on the goroutine that entered.
//
// Limitations: each Plugin has VMs of its own, also when two have the same vm_id and code (what they
// share is Shared data).
package wasmhost
