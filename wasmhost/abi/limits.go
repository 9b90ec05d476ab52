package abi

import "sidecar/api/header"

// Bounds on what a guest can have the host keep; Envoy has none of them. Beyond them a call fails with
// InternalFailure and the log says so, once.
const (
	// maxName bounds names that are kept: of metrics and of declared properties.
	maxName = 4 << 10
	// maxValue bounds a property's value.
	maxValue = 1 << 20
	// maxMapFields and maxMapBytes bound what a header map may grow to.
	maxMapFields = 8192
	maxMapBytes  = 4 << 20
	// maxBody bounds what a body may grow to by a guest's edits.
	maxBody = 64 << 20
	// maxExpressionBytes bounds the source of a VM's expressions.
	maxExpressionBytes = 1 << 20
	// maxLine bounds a line of the log; the rest of it is left out.
	maxLine = 32 << 10
)

// fits tells whether a field may be added to a map.
func (c call) fits(m *header.Map, name, value string) bool {
	if m.Len() < maxMapFields && m.Bytes()+len(name)+len(value) <= maxMapBytes {
		return true
	}
	c.vm.warnOnce("a header map has 8192 fields or 4 MiB, which is the limit")
	return false
}

func clipLine(b []byte) string {
	if len(b) > maxLine {
		return string(b[:maxLine]) + "..."
	}
	return string(b)
}
