// Package grpctime reads the grpc-timeout header; the connection manager and the router both do.
package grpctime

import (
	"strconv"
	"time"
)

// Parse reads a grpc-timeout: up to eight digits and a unit; 0 if there is none or it is not
// valid.
func Parse(v string) time.Duration {
	if len(v) < 2 || len(v) > 9 {
		return 0
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil {
		return 0
	}
	unit := time.Duration(0)
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	}
	if n > uint64(1<<62/max(unit, 1)) {
		return 1 << 62
	}
	return time.Duration(n) * unit
}
