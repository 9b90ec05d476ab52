// Package transport carries discovery messages: gRPC streams that come back after a break, and
// files that are read again when they are replaced. It knows nothing of resources, versions and
// nonces; package xds does.
package transport
