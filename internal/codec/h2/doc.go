// Package h2 is the HTTP/2 codec of both sides of the proxy: ServerConn reads requests of a client,
// ClientConn carries them to an upstream host. Each is one wire.Conn whose reader handles frames where
// it reads them and never waits: not for a write, a window, or a stream that is busy.
//
// Frames are parsed in the block they were read into, by nine bytes of header and a switch: x/net's
// Framer reads from an io.Reader, so every payload would be copied once more, and each frame it
// returns is an allocation.
//
// # Locks
//
// One lock a connection (conn.mu) guards its table of streams, their queues, all windows and the HPACK
// encoder; the output of wire.Conn is appended to under it, so that stream numbers, HPACK state and
// bytes have one order. Order: conn.mu, then that of wire.Conn. Nothing is posted, and nobody called,
// while it is held: what has to be told is noted in an after and told once it is free. Nobody ever
// holds two connections' locks.
//
// # Flow control
//
// DATA goes straight to the output while both windows and the output's watermark allow it and nothing
// of the stream waits; else it is queued in its stream, and sent later, one frame a stream in turn.
// Full tells the source to stop at streamHigh bytes; trailers, and a reset after the end, queue behind.
//
// What is received goes to the stream at once unless it is paused, or its mailbox has no room: then it
// is queued. The stream's window is returned as its data is delivered, in steps of half the window.
// The connection's window is returned on receipt, so that a stream that is not read starves no other,
// as long as at most one connection window more is queued than the peer began with; beyond that it is
// returned on delivery. A connection's memory for what it received is so below
// 2 x initial_connection_window_size, and a stream's below initial_stream_window_size.
//
// DIVERGES(connection-window): Envoy returns the connection window on delivery only, where a few
// streams that nobody reads stop all others.
//
// # Life of a stream
//
// A stream is in the table from its head until both directions have ended on the wire, or it was
// reset. It goes back to the pool when it is out of the table, its user has released it, and nobody
// delivers to it. Who comes from outside finds it by its number in the table, under the lock.
//
// Single importer: the composition root hands it to the connection manager and to the pools, which
// name no codec.
package h2
