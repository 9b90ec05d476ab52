// Package h1 is the HTTP/1.1 codec: what is read becomes header maps and events of a stream, what a
// stream sends becomes bytes.
//
// Three layers, each of its own use: the decoder (request.go, response.go, body.go) and the encoder
// (encode.go, writer.go) are pure, they see neither sockets nor streams. ServerConn and ClientConn
// join them to one wire.Conn.
//
// What is accepted is what Envoy 1.40 accepts by default (its Balsa parser with the checks of its
// own codec), down to status, body and response code details; Strict accepts less. What is sent is
// always well-formed: never both Content-Length and Transfer-Encoding, never more or fewer bytes of
// a body than were announced.
//
// Single importer: the composition root hands it to the connection manager and to the pools, which
// name no codec.
//
// # Limitations
//
// Only sockets of wire.Conn are served. A client connection carries one request at a time: requests
// are not pipelined upstream, as in Envoy.
package h1
