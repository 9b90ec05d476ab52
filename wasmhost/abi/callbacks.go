package abi

import "sidecar/wasmhost/internal/engine"

// callback is the position of an exported function in the list that modules are linked with.
type callback int

const (
	cbMalloc callback = iota
	cbMemoryAllocate
	cbInitialize
	cbStart
	cbMain
	cbMainVoid
	cbContextCreate
	cbVMStart
	cbConfigure
	cbTick
	cbRequestHeaders
	cbRequestBody
	cbRequestTrailers
	cbResponseHeaders
	cbResponseBody
	cbResponseTrailers
	cbHTTPCallResponse
	cbQueueReady
	cbDone
	cbLog
	cbDelete
	cbNewConnection
	cbDownstreamData
	cbUpstreamData
	cbDownstreamClose
	cbUpstreamClose
	cbForeignFunction
	cbGRPCInitialMetadata
	cbGRPCReceive
	cbGRPCTrailingMetadata
	cbGRPCClose
	cbResolveDNS
	cbStatsUpdate
	numCallbacks
)

//nolint:gochecknoglobals // immutable table
var callbacks = [numCallbacks]engine.Export{
	cbMalloc:           {Name: "malloc", Signature: "i:i"},
	cbMemoryAllocate:   {Name: "proxy_on_memory_allocate", Signature: "i:i"},
	cbInitialize:       {Name: "_initialize", Signature: ":"},
	cbStart:            {Name: "_start", Signature: ":"},
	cbMain:             {Name: "main", Signature: "ii:i", Alternatives: []engine.Signature{":i", ":"}},
	cbMainVoid:         {Name: "__main_void", Signature: ":i"},
	cbContextCreate:    {Name: "proxy_on_context_create", Signature: "ii:"},
	cbVMStart:          {Name: "proxy_on_vm_start", Signature: "ii:i"},
	cbConfigure:        {Name: "proxy_on_configure", Signature: "ii:i"},
	cbTick:             {Name: "proxy_on_tick", Signature: "i:"},
	cbRequestHeaders:   {Name: "proxy_on_request_headers", Signature: "iii:i", Alternatives: []engine.Signature{"ii:i"}},
	cbRequestBody:      {Name: "proxy_on_request_body", Signature: "iii:i"},
	cbRequestTrailers:  {Name: "proxy_on_request_trailers", Signature: "ii:i"},
	cbResponseHeaders:  {Name: "proxy_on_response_headers", Signature: "iii:i", Alternatives: []engine.Signature{"ii:i"}},
	cbResponseBody:     {Name: "proxy_on_response_body", Signature: "iii:i"},
	cbResponseTrailers: {Name: "proxy_on_response_trailers", Signature: "ii:i"},
	cbHTTPCallResponse: {Name: "proxy_on_http_call_response", Signature: "iiiii:"},
	cbQueueReady:       {Name: "proxy_on_queue_ready", Signature: "ii:"},
	cbDone:             {Name: "proxy_on_done", Signature: "i:i"},
	cbLog:              {Name: "proxy_on_log", Signature: "i:"},
	cbDelete:           {Name: "proxy_on_delete", Signature: "i:"},
	cbNewConnection:    {Name: "proxy_on_new_connection", Signature: "i:i"},
	cbDownstreamData:   {Name: "proxy_on_downstream_data", Signature: "iii:i"},
	cbUpstreamData:     {Name: "proxy_on_upstream_data", Signature: "iii:i"},
	cbDownstreamClose:  {Name: "proxy_on_downstream_connection_close", Signature: "ii:"},
	cbUpstreamClose:    {Name: "proxy_on_upstream_connection_close", Signature: "ii:"},
	cbForeignFunction:  {Name: "proxy_on_foreign_function", Signature: "iii:"},

	cbGRPCInitialMetadata:  {Name: "proxy_on_grpc_receive_initial_metadata", Signature: "iii:"},
	cbGRPCReceive:          {Name: "proxy_on_grpc_receive", Signature: "iii:"},
	cbGRPCTrailingMetadata: {Name: "proxy_on_grpc_receive_trailing_metadata", Signature: "iii:"},
	cbGRPCClose:            {Name: "proxy_on_grpc_close", Signature: "iii:"},
	cbResolveDNS:           {Name: "envoy_on_resolve_dns", Signature: "iii:"},
	cbStatsUpdate:          {Name: "envoy_on_stats_update", Signature: "ii:"},
}

// exports is the list to link with; a callback that is not allowed gets a name that no module has.
func exports(allowed Capabilities) []engine.Export {
	list := callbacks
	for i := int(cbContextCreate); i < len(list); i++ {
		if !allowed.allows(list[i].Name) {
			list[i].Name = "(restricted) " + list[i].Name
		}
	}
	return list[:]
}

// Has tells whether the module has a callback, by its name without "proxy_on_".
func (m *Module) has(cb callback) bool { return m.pre.Has(int(cb)) }

// Phases tells which stream callbacks a module has, so that a placement can skip the others.
type Phases struct {
	RequestHeaders, RequestBody, RequestTrailers    bool
	ResponseHeaders, ResponseBody, ResponseTrailers bool
	Log                                             bool
}

// Phases of the module.
func (m *Module) Phases() Phases {
	return Phases{
		RequestHeaders: m.has(cbRequestHeaders), RequestBody: m.has(cbRequestBody),
		RequestTrailers: m.has(cbRequestTrailers), ResponseHeaders: m.has(cbResponseHeaders),
		ResponseBody: m.has(cbResponseBody), ResponseTrailers: m.has(cbResponseTrailers),
		Log: m.has(cbLog),
	}
}

// Initialize runs _initialize and main, or else _start: never both. A module with neither is fine.
func (v *VM) Initialize() error {
	m := v.module
	switch {
	case m.has(cbInitialize):
		if _, err := v.run(cbInitialize, nil); err != nil {
			return err
		}
		switch {
		case m.has(cbMain):
			_, err := v.run(cbMain, nil, make([]uint64, m.pre.Params(int(cbMain)))...)
			return err
		case m.has(cbMainVoid):
			_, err := v.run(cbMainVoid, nil)
			return err
		}
	case m.has(cbStart):
		_, err := v.run(cbStart, nil)
		return err
	}
	return nil
}

// ContextCreate makes the guest's side of a context; parent 0 makes a root.
func (v *VM) ContextCreate(c Context, id, parent uint32) error {
	if !v.module.has(cbContextCreate) {
		return nil
	}
	v.legacyCfg = parent == 0
	_, err := v.run(cbContextCreate, c, uint64(id), uint64(parent))
	v.legacyCfg = false
	return err
}

// VMStart runs on_vm_start; a missing one says yes.
func (v *VM) VMStart(c Context, root uint32) (bool, error) {
	if !v.module.has(cbVMStart) {
		return true, nil
	}
	r, err := v.run(cbVMStart, c, uint64(root), uint64(len(v.VMConfig)))
	return uint32(r) != 0, err
}

// Configure runs on_configure; a missing one says yes. Only meanwhile the plugin's configuration can
// be read.
func (v *VM) Configure(c Context, root uint32, config []byte) (bool, error) {
	if !v.module.has(cbConfigure) {
		return true, nil
	}
	v.PluginConfig, v.legacyCfg = config, true
	if config == nil {
		v.PluginConfig = []byte{}
	}
	r, err := v.run(cbConfigure, c, uint64(root), uint64(len(config)))
	v.PluginConfig, v.legacyCfg = nil, false
	return uint32(r) != 0, err
}

// notify calls a callback without a result, if the module has it.
func (v *VM) notify(cb callback, c Context, args ...uint64) error {
	if !v.module.has(cb) {
		return nil
	}
	_, err := v.run(cb, c, args...)
	return err
}

// action calls a callback that answers with an action; a missing one continues.
func (v *VM) action(cb callback, c Context, args ...uint64) (Action, error) {
	if !v.module.has(cb) {
		return ActionContinue, nil
	}
	r, err := v.run(cb, c, args...)
	return Action(uint32(r)), err
}

// Tick runs on_tick.
func (v *VM) Tick(c Context, root uint32) error { return v.notify(cbTick, c, uint64(root)) }

// QueueReady runs on_queue_ready.
func (v *VM) QueueReady(c Context, root, token uint32) error {
	return v.notify(cbQueueReady, c, uint64(root), uint64(token))
}

// Headers runs on_request_headers or on_response_headers.
func (v *VM) Headers(response bool, c Context, id uint32, count int, end bool) (Action, error) {
	cb := cbRequestHeaders
	if response {
		cb = cbResponseHeaders
	}
	if v.module.Version == V010 {
		return v.action(cb, c, uint64(id), uint64(count))
	}
	return v.action(cb, c, uint64(id), uint64(count), flag(end))
}

// Body runs on_request_body or on_response_body.
func (v *VM) Body(response bool, c Context, id uint32, size int, end bool) (Action, error) {
	cb := cbRequestBody
	if response {
		cb = cbResponseBody
	}
	return v.action(cb, c, uint64(id), uint64(size), flag(end))
}

// Trailers runs on_request_trailers or on_response_trailers.
func (v *VM) Trailers(response bool, c Context, id uint32, count int) (Action, error) {
	cb := cbRequestTrailers
	if response {
		cb = cbResponseTrailers
	}
	return v.action(cb, c, uint64(id), uint64(count))
}

// Log runs on_log, the first of the three calls that end a context.
func (v *VM) Log(c Context, id uint32) error { return v.notify(cbLog, c, uint64(id)) }

// Done runs on_done; a missing one says yes. False asks to wait for proxy_done, which only roots may.
func (v *VM) Done(c Context, id uint32) (bool, error) {
	if !v.module.has(cbDone) {
		return true, nil
	}
	r, err := v.run(cbDone, c, uint64(id))
	return uint32(r) != 0, err
}

// Delete runs on_delete, the last call for a context.
func (v *VM) Delete(c Context, id uint32) error { return v.notify(cbDelete, c, uint64(id)) }

// HTTPCallResponse runs on_http_call_response, on the root's id, while r can be read. current is the
// stream that made the call, whose data the guest may switch to, or the root.
func (v *VM) HTTPCallResponse(current Context, root, token uint32, r CallResponse) error {
	var headers, trailers int
	if r.Headers != nil {
		headers = r.Headers.Len()
	}
	if r.Trailers != nil {
		trailers = r.Trailers.Len()
	}
	v.call = r
	err := v.notify(cbHTTPCallResponse, current,
		uint64(root), uint64(token), uint64(headers), uint64(len(r.Body)), uint64(trailers))
	v.call = CallResponse{}
	return err
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
