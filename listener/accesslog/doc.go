// Package accesslog compiles access loggers (files, stdout, stderr) with their filters and writes
// their lines.
//
// A line is formatted into the buffer of its sink under a short lock; one goroutine for each sink,
// which lives only while there is something to write, writes the buffer out when
// --file-flush-min-size-kb has gathered or --file-flush-interval-msec has passed. No data goroutine
// ever writes to a file. When the writer can't keep up the buffer stays within its bound: lines are
// dropped, whole, and counted.
//
// Limitations: gRPC, OpenTelemetry and Fluentd loggers are refused here; CEL filters, and the
// traceable filter (there is no tracing), too.
package accesslog
