// Package http is the placement of Wasm plugins as HTTP filters (envoy.filters.http.wasm).
//
// A callback enters the stream's VM, calls the guest and leaves. When the VM is busy the direction
// stops (Wait; Hold for data that has more to come, which then joins what the guest is shown) and goes
// on inside the stream when the VM is its own. The guest's Pause is the same without an end: it waits
// for continue_stream. What the guest asks for (a reply, a reset, going on) is done after it has
// returned and the VM is left, since the proxy may call this very filter again from there.
//
// Limitations: a plugin sees of a stream other than the current one (from on_tick, on_queue_ready)
// only its properties and what ends its pause; header maps and bodies are absent there.
package http
