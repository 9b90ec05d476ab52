package abi

import (
	"sidecar/api/header"
	"sidecar/internal/buf"
)

// Context is what a context id stands for: a stream, or the plugin's root. Its methods are called
// while the guest runs, on the VM's goroutine, and must not block.
type Context interface {
	Maps
	Buffers
	Properties
	Control
}

// Maps gives access to header maps.
type Maps interface {
	// Headers returns a map to read. nil with OK means that it is not there: reads answer BadArgument,
	// but a list of pairs is empty. NotFound means the same in the log phase, where a get answers so.
	Headers(m MapType) (*header.Map, Status)
	// MutableHeaders returns a map to change, and may create trailers; nil if it can't be changed.
	MutableHeaders(m MapType) *header.Map
	// HeadersChanged is called after each change (the route cache depends on the request's).
	HeadersChanged(m MapType)
}

// Buffers gives access to bodies. The VM itself has the configurations and call data.
type Buffers interface {
	// Buffer returns a buffer. A NotFound status means that there is none in this phase; the zero Body
	// with OK that it is empty and can't be changed.
	Buffer(b BufferType) (Body, Status)
}

// Body is a buffer: one of the two fields at most is set.
type Body struct {
	Data   *buf.Buffer // can be changed
	Static []byte      // can't
}

// Bytes is the contents.
func (b Body) Bytes() []byte {
	if b.Data != nil {
		return b.Data.Bytes()
	}
	return b.Static
}

// Properties are the attributes of a stream or of the plugin.
type Properties interface {
	// AppendProperty appends the value of a path, whose segments are separated by NUL. path shares the
	// guest's memory.
	AppendProperty(dst []byte, path string) ([]byte, Status)
	// Resolve is the value of a path for expressions, of one of the types of cel.Attributes.
	Resolve(path string) (any, bool)
	// SetProperty and SetFilterState keep nothing of what they are handed.
	SetProperty(path string, value []byte, d Declared) Status
	// SetFilterState sets one of the proxy's own objects.
	SetFilterState(name string, value []byte) Status
}

// Control changes the course of a stream. Nothing takes effect before the guest has returned.
type Control interface {
	SendLocalResponse(r LocalResponse)
	Continue(s StreamType) Status
	Close(s StreamType) Status
	ClearRouteCache()
}

// LocalResponse is what a plugin answers with. It owns its memory.
type LocalResponse struct {
	Status     uint32
	Details    string
	Body       string
	Headers    [][2]string
	GRPCStatus int // -1 for none
}
