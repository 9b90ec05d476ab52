// Package attribute resolves Envoy's attributes (request.path, xds.cluster_name, ...) from the record
// of a stream or connection, for every placement of plugins and for their CEL expressions.
package attribute
