// Package process runs a proxy (the project's or Envoy: they take the same flags and serve the same
// admin API) as a child process on loopback, and reads what the kernel accounts to it and to its
// children. It knows nothing of what is measured or compared with it.
package process
