// Package hpack compresses the header fields of HTTP/2 (RFC 7541) without making garbage: fields are
// decoded to a Sink as slices of the block, of the tables or of a scratch buffer, and encoded from
// the strings of a header map. Well-known names carry their header.ID in both tables, so that they
// are looked up once for each entry and not once for each request.
//
// A Decoder belongs to the reading goroutine of a connection and an Encoder to whoever holds the
// connection's write lock: neither has a lock of its own. Both are ready after Init and hold no
// memory before the first entry of their tables.
//
// Limitations: the encoder never keeps more than 4096 bytes of table, whatever the peer allows. The
// never-indexed mark of a received field is given to the Sink; a header map does not keep it, and the
// encoder decides by name.
//
// Single importer: the HTTP/2 codec. It is apart to be fuzzed and measured against x/net's alone.
package hpack
