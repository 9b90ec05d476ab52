// Package istiostats is Istio's filter istio.stats: the metrics of a mesh (istio_requests_total and
// the like) by source and destination workload, for HTTP streams and for TCP connections.
//
// Their names begin with "istiocustom.", which Prometheus output leaves out. The filter has an HTTP and
// a network form that share the metrics, so both are here.
//
// Limitations: expressions of dimensions are texts and paths of attributes, not all of CEL; others are
// refused.
package istiostats
