// Package log is the application log: lines in a spdlog pattern, as Envoy writes them, with a level
// for each component that can be changed while the process runs.
//
// A package that logs gets a *slog.Logger by its constructor and knows nothing of this one;
// [Logs.Component] makes it. A line is formatted on the goroutine that logs and written by another:
// a reader of connections never waits for a disk. When lines come faster than they can be written
// they are dropped, and the log says how many.
package log
