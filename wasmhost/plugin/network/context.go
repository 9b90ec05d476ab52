package network

import (
	"strings"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/wasmhost"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/attribute"
)

// Stream implements wasmhost.Owner.
func (f *Filter) Stream() *wasmhost.Stream { return &f.stream }

// Info implements wasmhost.Owner: the connection's own record.
func (f *Filter) Info() *stream.Info {
	if f.ended.Load() {
		return nil
	}
	return f.c.Info.Record
}

// Post implements wasmhost.Owner: what is posted needs no more than the VM.
func (f *Filter) Post(t *stream.Turn, run func(*stream.Turn)) {
	if !f.ended.Load() {
		run(t)
	}
}

// Answered implements wasmhost.Owner.
func (f *Filter) Answered(t *stream.Turn) {
	f.stream.VM().Do(t, "answers to call-outs", func() error {
		for {
			if more, err := f.stream.TakeAnswer(); err != nil || !more {
				return err
			}
		}
	})
}

// VMFailed implements wasmhost.Owner.
func (f *Filter) VMFailed(*stream.Turn, *wasmhost.VM) {
	f.failed.Store(true)
	switch f.factory.Config().Policy {
	case wasmhost.FailClosed, wasmhost.FailReload:
		f.close()
	case wasmhost.FailOpen, wasmhost.FailOpenLegacy:
		f.poke()
	}
}

// Headers implements abi.Maps: a connection has none.
func (f *Filter) Headers(abi.MapType) (*header.Map, abi.Status) { return nil, abi.OK }

// MutableHeaders implements abi.Maps.
func (f *Filter) MutableHeaders(abi.MapType) *header.Map { return nil }

// HeadersChanged implements abi.Maps.
func (f *Filter) HeadersChanged(abi.MapType) {}

// Buffer implements abi.Buffers: data is there in its own callback.
func (f *Filter) Buffer(b abi.BufferType) (abi.Body, abi.Status) {
	if f.shown != nil && (b == abi.UpstreamData) == f.isUp && (b == abi.UpstreamData || b == abi.DownstreamData) {
		return abi.Body{Data: f.shown}, abi.OK
	}
	return abi.Body{}, abi.OK
}

// AppendProperty implements abi.Properties.
func (f *Filter) AppendProperty(b []byte, path string) ([]byte, abi.Status) {
	return f.plugin.AppendProperty(b, f.Info(), f, path)
}

// Resolve implements abi.Properties.
func (f *Filter) Resolve(path string) (any, bool) { return f.plugin.Resolve(f.Info(), f, path) }

// SetProperty implements abi.Properties. Others read the record of a connection that has found its
// upstream: only before can plugins write to it.
func (f *Filter) SetProperty(path string, value []byte, d abi.Declared) abi.Status {
	return attribute.SetProperty(f.Info(), path, value, d)
}

// SetFilterState implements abi.Properties.
func (f *Filter) SetFilterState(name string, value []byte) abi.Status {
	return attribute.SetState(f.Info(), strings.Clone(name), value)
}

// SendLocalResponse implements abi.Control: there is nothing to answer.
func (f *Filter) SendLocalResponse(abi.LocalResponse) {}

// Continue implements abi.Control.
func (f *Filter) Continue(s abi.StreamType) abi.Status {
	if s == abi.DownstreamStream && !f.ended.Load() {
		f.resumed.Store(true)
		f.stream.VM().Defer(func(*stream.Turn) { f.poke() })
	}
	return abi.OK
}

// Close implements abi.Control: what was written is sent first.
func (f *Filter) Close(s abi.StreamType) abi.Status {
	if (s == abi.DownstreamStream || s == abi.UpstreamStream) && !f.ended.Load() && !f.logging {
		f.stream.VM().Defer(func(*stream.Turn) { f.close() })
	}
	return abi.OK
}

// ClearRouteCache implements abi.Control.
func (f *Filter) ClearRouteCache() {}
