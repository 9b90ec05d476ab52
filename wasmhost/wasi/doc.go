// Package wasi is the part of WASI preview 1 that plugins get: standard output and error as log
// lines, environment, clocks, random bytes. There are no files and no sockets; calls for them answer
// with the error numbers of Envoy's host, which toolchains' start-up code depends on. Both module
// names, wasi_snapshot_preview1 and wasi_unstable, have all of it.
package wasi
