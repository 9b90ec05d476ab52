// Package hcm is the HTTP connection manager: the network filter that turns a connection into
// streams, runs each through the HTTP filters, and answers what fails.
//
// It knows no codec: what reads and writes HTTP on the connection is behind stream.Encoder and
// stream.ServerHandler. A stream is a monitor (stream.Monitor): everything in this package that
// takes a Turn and belongs to a Stream runs inside it.
//
// The files in the order of a request's life: conn.go (the connection), stream.go (a stream begins),
// request.go (what is checked and added to the head), iterate.go (the way through the filters, both
// directions), slot.go (what a filter sees), reply.go (every failure's answer), response.go (what is
// added to the response), timers.go, finish.go (record, logs, recycling). compile.go turns the
// configuration into a Config.
package hcm
