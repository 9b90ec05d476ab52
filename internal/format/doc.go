// Package format compiles Envoy's substitution format strings ("%REQ(X?Y):Z%" and so on), which
// make access log lines, header values and the bodies of local replies.
//
// A format is parsed once into a list of operators; each appends its text to a buffer, and nothing
// is allocated for a stream. All values come from the stream's record (stream.Info). What isn't
// known is printed as "-", or left out where empty values are to be omitted; in JSON it is null.
//
// Limitations: CEL, TYPED_CEL and the operators for data that isn't gathered (retransmissions and
// the like) are refused by name. TRACE_ID and SPAN_ID are "-", as in Envoy
// without a tracer.
package format
