// Package accesslog runs plugins as access loggers (envoy.access_loggers.wasm): on_log is called on the
// plugin's root context, with the maps and attributes of the stream that has ended.
package accesslog

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/wasm/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/wasmhost"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/attribute"
)

var fields = config.Fields[*accesslogv3.WasmAccessLog]{Used: "config"}

// FieldTables are the accounts of the logger's message, for tests.
func FieldTables() []config.Table { return []config.Table{fields} }

// Logger is a compiled logger. It is warmed and retired as a filter's factory is.
type Logger struct{ *wasmhost.Running }

// Compile compiles a logger; errors are reported at p.
func Compile(h *wasmhost.Host, p *config.Path, m *accesslogv3.WasmAccessLog, errs *config.Errors) *Logger {
	fields.Check(p, m, errs)
	cfg, err := wasmhost.Compile(m.GetConfig(), nil, h.Limits())
	if err != nil {
		errs.Wrap(p.Field("config"), err)
		return nil
	}
	return &Logger{wasmhost.NewRunning(h, cfg, "")}
}

// Log tells the plugin of a stream. It doesn't block: with all VMs busy the record is copied for later.
func (l *Logger) Log(info *stream.Info) {
	p := l.Acquire()
	if p == nil {
		return
	}
	defer p.Release()
	stream.Do(func(t *stream.Turn) {
		p.LogRoot(t, record{p, info}, func() abi.Context { return record{p, &attribute.Keep(info).Info} })
	})
}

// record is a finished stream as a context of the guest: nothing of it can be changed.
type record struct {
	plugin *wasmhost.Plugin
	info   *stream.Info
}

// Headers implements abi.Maps.
func (r record) Headers(m abi.MapType) (*header.Map, abi.Status) {
	var got *header.Map
	switch m {
	case abi.RequestHeaders:
		got = r.info.Request
	case abi.ResponseHeaders:
		got = r.info.Response
	case abi.ResponseTrailers:
		got = r.info.ResponseTrailers
	default:
	}
	if got == nil {
		return nil, abi.NotFound
	}
	return got, abi.OK
}

// MutableHeaders implements abi.Maps.
func (record) MutableHeaders(abi.MapType) *header.Map { return nil }

// HeadersChanged implements abi.Maps.
func (record) HeadersChanged(abi.MapType) {}

// Buffer implements abi.Buffers.
func (record) Buffer(abi.BufferType) (abi.Body, abi.Status) { return abi.Body{}, abi.OK }

// AppendProperty implements abi.Properties.
func (r record) AppendProperty(b []byte, path string) ([]byte, abi.Status) {
	return r.plugin.AppendProperty(b, r.info, r, path)
}

// Resolve implements abi.Properties.
func (r record) Resolve(path string) (any, bool) { return r.plugin.Resolve(r.info, r, path) }

// SetProperty implements abi.Properties.
func (record) SetProperty(string, []byte, abi.Declared) abi.Status { return abi.NotFound }

// SetFilterState implements abi.Properties.
func (record) SetFilterState(string, []byte) abi.Status { return abi.NotFound }

// SendLocalResponse implements abi.Control.
func (record) SendLocalResponse(abi.LocalResponse) {}

// Continue implements abi.Control.
func (record) Continue(abi.StreamType) abi.Status { return abi.OK }

// Close implements abi.Control.
func (record) Close(abi.StreamType) abi.Status { return abi.OK }

// ClearRouteCache implements abi.Control.
func (record) ClearRouteCache() {}
