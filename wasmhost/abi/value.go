package abi

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Pairs is a map that can write itself as pairs.
type Pairs interface {
	AppendPairs(b []byte) []byte
}

// AppendValue serialises a value as Envoy does: strings and bytes as they are, numbers in 8 bytes, times
// as nanoseconds, maps and lists as pairs. SerializationFailure is for what has no form.
func AppendValue(b []byte, v any) ([]byte, Status) {
	switch v := v.(type) {
	case string:
		return append(b, v...), OK
	case []byte:
		return append(b, v...), OK
	case bool:
		return append(b, byte(flag(v))), OK
	case int64:
		return binary.LittleEndian.AppendUint64(b, uint64(v)), OK
	case uint64:
		return binary.LittleEndian.AppendUint64(b, v), OK
	case float64:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(v)), OK
	case time.Duration:
		return binary.LittleEndian.AppendUint64(b, uint64(v)), OK
	case time.Time:
		return binary.LittleEndian.AppendUint64(b, uint64(v.UnixNano())), OK
	case Pairs:
		return v.AppendPairs(b), OK
	case map[string]any:
		pairs := make([][2]string, 0, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			s, status := AppendValue(nil, v[key])
			if status != OK {
				return b, status
			}
			pairs = append(pairs, [2]string{key, string(s)})
		}
		return AppendPairs(b, pairs), OK
	case []any:
		pairs := make([][2]string, 0, len(v))
		for _, value := range v {
			s, status := AppendValue(nil, value)
			if status != OK {
				return b, status
			}
			pairs = append(pairs, [2]string{string(s)})
		}
		return AppendPairs(b, pairs), OK
	case fmt.Stringer:
		return append(b, v.String()...), OK
	}
	return b, SerializationFailure
}
