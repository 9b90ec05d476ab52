// Package stream is the contract between those who carry a request: codecs, the connection manager,
// filters, the router, pools and plugins.
//
// A stream is a monitor by mailbox: [Monitor.Post] runs an event at once when nobody runs the stream,
// else queues it for the goroutine that does, and nobody ever blocks on a stream. A [Turn] is one
// goroutine's stay: what is posted to other streams while one runs goes on the turn's own list and
// runs after that stream is left, so that no goroutine is ever inside two streams. Codecs are seen
// through Encoder and ServerHandler; what went wrong is a [Fault], what is remembered of a request for
// logs and stats is an [Info].
package stream
