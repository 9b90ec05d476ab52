// Package filter is the contract between the proxy and its filters.
//
// An HTTP filter is made for each stream by the Factory that its configuration compiled to. It
// implements those of the small interfaces below whose phase it wants; the others cost it nothing.
// Callbacks of one stream never overlap and must not block: a filter that has to wait returns Wait
// and resumes once, from wherever it likes. Requests pass the filters in configured order, responses
// in reverse.
package filter

import (
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// Action is what a callback wants to happen next.
type Action uint8

// The actions.
const (
	// Continue passes what the filter was shown (and what it held before) to the next filter.
	Continue Action = iota
	// Hold keeps it and asks again: headers are held while data callbacks go on; data joins the
	// filter's buffer, and the next data callback sees all of it. Beyond the stream's buffer limit the
	// stream fails with 413 (request) or 500 (response), or, after Stream.Watermark, its source stops.
	Hold
	// Done says that the filter has replied or reset the stream. Nothing more is passed on.
	Done
	// Wait stops this direction until the Resume that the filter took before it returned is used. Data
	// that arrives meanwhile is kept under back-pressure and no callback of this direction is made.
	Wait
)

// RequestHeaders is called with the request's head. end says that there is no body.
type RequestHeaders interface {
	OnRequestHeaders(t *stream.Turn, h *header.Map, end bool) Action
}

// RequestData is called with a part of the request body, or all that was held so far. The filter may
// change the buffer. An empty buffer with end is the end of a body whose last part came before.
type RequestData interface {
	OnRequestData(t *stream.Turn, data *buf.Buffer, end bool) Action
}

// RequestTrailers is called with the request's trailers.
type RequestTrailers interface {
	OnRequestTrailers(t *stream.Turn, h *header.Map) Action
}

// ResponseHeaders is called with the response's head, not with 1xx ones.
type ResponseHeaders interface {
	OnResponseHeaders(t *stream.Turn, h *header.Map, end bool) Action
}

// ResponseData is RequestData for the response.
type ResponseData interface {
	OnResponseData(t *stream.Turn, data *buf.Buffer, end bool) Action
}

// ResponseTrailers is RequestTrailers for the response.
type ResponseTrailers interface {
	OnResponseTrailers(t *stream.Turn, h *header.Map) Action
}

// Logger is called once, when the stream's record is complete and before Destroyer.
type Logger interface {
	OnLog(t *stream.Turn, info *stream.Info)
}

// Destroyer is called last. The filter lets go of the stream: no Resume of it has effect any more.
type Destroyer interface {
	OnDestroy(t *stream.Turn)
}

// Direction is one of the two halves of a stream.
type Direction uint8

// The directions.
const (
	Request Direction = iota
	Response
)

// Stream is what a filter sees of the stream it was made for. All methods are called inside the
// stream: from a callback, or from a function that Resume.Call runs.
type Stream interface {
	Record
	Bodies
	Control
	Routing
}

// Record gives the stream's record with its header maps.
type Record interface {
	Info() *stream.Info
}

// Bodies gives access to what this filter holds.
type Bodies interface {
	// Held returns the filter's buffer of a direction: in a data callback the data shown, between
	// callbacks what is held. It may be changed while the filter holds or waits.
	Held(d Direction) *buf.Buffer
	// AddTrailers gives the direction trailers, if it has none and its last data is being shown.
	AddTrailers(d Direction) *header.Map
	// Watermark says whether the buffer of a direction that the filter holds stops its source at the
	// limit, or fails the stream there, which it does until told otherwise.
	Watermark(t *stream.Turn, d Direction, on bool)
}

// Control changes the course of the stream.
type Control interface {
	// Reply answers the request; the response passes the response filters, from the last configured
	// one that the request reached. After response headers have gone it resets the stream. Return Done
	// after it.
	Reply(t *stream.Turn, r *Reply)
	// Reset ends the stream without an answer.
	Reset(t *stream.Turn, f *stream.Fault)
	// Pause returns the token that ends a Wait of this direction, or a Hold between callbacks.
	Pause(d Direction) Resume
}

// Routing is about the route that the request takes.
type Routing interface {
	// Route returns the route entry that matches the request as it is now; nil if none does. It is
	// looked up once and kept until ClearRouteCache.
	Route() Route
	ClearRouteCache()
	// RouteConfig returns what the route has for this filter in typed_per_filter_config, as compiled by
	// the filter; nil if nothing.
	RouteConfig() any
}

// Route is what filters may know of a route entry.
type Route interface {
	Name() string
	ClusterName() string
}

// Reply is a local reply.
type Reply struct {
	Status  int
	Body    string
	Details string
	Flag    stream.Flag
	// GRPCStatus is sent to gRPC clients; -1 derives it from Status.
	GRPCStatus int
	// Headers may add to or change the head before it is sent.
	Headers func(h *header.Map)
	// Close closes the downstream connection after the reply.
	Close bool
	// Fault is set by the proxy for replies that a failure caused.
	Fault *stream.Fault
}

// Resume ends a wait. It is a value, may be used from any goroutine, and works once: later uses, and
// uses after the stream has ended, do nothing.
type Resume struct {
	Target stream.Target
	Seq    uint32
}

// Continue goes on as if the callback that waited had returned Continue.
func (r Resume) Continue(t *stream.Turn) {
	r.Target.Post(t, stream.Event{Kind: stream.EventResume, Seq: r.Seq})
}

// Call runs f inside the stream, unless it has ended.
func (r Resume) Call(t *stream.Turn, f func(*stream.Turn)) {
	r.Target.Post(t, stream.Event{Kind: stream.EventCall, Seq: r.Seq, Ref: f})
}

// Factory makes the filter of one stream. It is immutable and shared by all streams.
type Factory interface {
	// NewFilter returns the filter, which implements some of this package's callback interfaces; nil
	// leaves the filter out of this stream. A factory whose filter keeps nothing per stream may return
	// the same object every time.
	NewFilter(s Stream) any
}

// Retired is implemented by filters that a factory makes after its Retirer.Retire was called, which can
// happen to whoever loaded the factory just before. Such a filter refuses the stream; a holder that can
// take the factory that came after it does so instead.
type Retired interface {
	Retired() bool
}

// Terminal is what the last filter, the router, sees: it also sends the response.
type Terminal interface {
	Stream
	// RespondInterim sends a 1xx head; RespondHeaders, RespondData and RespondTrailers send the
	// response through the response filters. What they are handed must hold until they return; the
	// map of RespondHeaders until the stream ends.
	RespondInterim(t *stream.Turn, h *header.Map)
	RespondHeaders(t *stream.Turn, h *header.Map, end bool)
	RespondData(t *stream.Turn, p []byte, end bool)
	RespondTrailers(t *stream.Turn, h *header.Map)
	// PauseRequest stops or restarts the request's source, since the upstream takes no more.
	PauseRequest(t *stream.Turn, paused bool)
	// Target returns where events for r of this stream are to be posted.
	Target(r stream.Receiver) stream.Target
	// Arm calls OnDeadline of the terminal filter once d has passed; it replaces an earlier deadline of
	// the same number, of which there are MaxDeadlines. 0 takes it away.
	Arm(t *stream.Turn, which uint8, d time.Duration)
	// Committed tells that the response head was passed on: no other answer is possible.
	Committed() bool
}

// MaxDeadlines is how many deadlines a terminal filter has.
const MaxDeadlines = 5

// DeadlineHandler is implemented by a terminal filter that arms deadlines.
type DeadlineHandler interface {
	OnDeadline(t *stream.Turn, which uint8)
}

// TerminalFactory makes the terminal filter of one stream.
type TerminalFactory interface {
	NewTerminal(s Terminal) any
}

// ResponseDrained is told when the downstream takes data again after RespondData made it full.
type ResponseDrained interface {
	// OnResponseFull and OnResponseDrained are the high and low watermark of the response's way.
	OnResponseFull(t *stream.Turn)
	OnResponseDrained(t *stream.Turn)
}
