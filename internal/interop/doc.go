// Package interop plays the interoperability cases of grpc-go through the sidecar, with grpc-go's own
// client and server. All of it is a test: see `make interop`.
package interop
