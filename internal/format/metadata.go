package format

import (
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"sidecar/api/stream"
)

// namespaces is filter metadata by namespace.
type namespaces func(*stream.Info) map[string]map[string]any

func dynamicMetadata(in *stream.Info) map[string]map[string]any  { return in.Metadata }
func clusterMetadata(in *stream.Info) map[string]map[string]any  { return in.ClusterMetadata }
func hostMetadata(in *stream.Info) map[string]map[string]any     { return in.Upstream.HostMetadata }
func routeMetadata(in *stream.Info) map[string]map[string]any    { return in.RouteMetadata }
func vhostMetadata(in *stream.Info) map[string]map[string]any    { return in.VirtualHostMetadata }
func listenerMetadata(in *stream.Info) map[string]map[string]any { return in.Conn.ListenerMetadata }

func makeDynamicMetadata(param string, _ *Options) (op, error) {
	return metadataOp(param, dynamicMetadata), nil
}

func makeClusterMetadata(param string, _ *Options) (op, error) {
	return metadataOp(param, clusterMetadata), nil
}

func makeUpstreamMetadata(param string, _ *Options) (op, error) {
	return metadataOp(param, hostMetadata), nil
}

// makeMetadata makes METADATA(TYPE:namespace:key).
func makeMetadata(param string, _ *Options) (op, error) {
	kind, rest, _ := strings.Cut(param, ":")
	switch kind {
	case "DYNAMIC":
		return metadataOp(rest, dynamicMetadata), nil
	case "CLUSTER":
		return metadataOp(rest, clusterMetadata), nil
	case "UPSTREAM_HOST":
		return metadataOp(rest, hostMetadata), nil
	case "ROUTE":
		return metadataOp(rest, routeMetadata), nil
	case "VIRTUAL_HOST":
		return metadataOp(rest, vhostMetadata), nil
	case "LISTENER":
		return metadataOp(rest, listenerMetadata), nil
	case "LISTENER_FILTER_CHAIN":
		return op{}, errorf("METADATA(%s) is not supported by this proxy", kind)
	}
	return op{}, errorf("%s is not supported type of metadata", kind)
}

// metadataOp makes an operator for "namespace:key:key...".
func metadataOp(param string, from namespaces) op {
	namespace, path, deep := strings.Cut(param, ":")
	var keys []string
	if deep {
		keys = strings.Split(path, ":")
	}
	find := func(in *stream.Info) (any, bool) {
		fields, ok := from(in)[namespace]
		if !ok {
			return nil, false
		}
		if keys == nil {
			return fields, true
		}
		var v any = fields
		for _, k := range keys {
			m, isMap := v.(map[string]any)
			if v, ok = m[k]; !isMap || !ok {
				return nil, false
			}
		}
		return v, v != nil
	}
	return op{
		text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			v, ok := find(in)
			if s, isString := v.(string); isString {
				return append(dst, s...), ok
			}
			return AppendJSON(dst, v), ok
		},
		json: func(dst []byte, in *stream.Info) ([]byte, bool) {
			v, ok := find(in)
			return AppendJSON(dst, v), ok
		},
	}
}

// AppendJSON appends a value of the JSON kinds (nil, string, float64, bool, map[string]any, []any)
// as compact JSON with sorted keys; any other kind is its text, quoted.
func AppendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case interface{ AppendJSON(b []byte) []byte }: // an object of a filter
		return v.AppendJSON(dst)
	case string:
		return appendQuoted(dst, v)
	case bool:
		return strconv.AppendBool(dst, v)
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float64:
		return appendNumber(dst, v)
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendJSON(dst, e)
		}
		return append(dst, ']')
	case map[string]any:
		dst = append(dst, '{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendQuoted(dst, k), ':')
			dst = AppendJSON(dst, v[k])
		}
		return append(dst, '}')
	}
	return appendQuoted(dst, fmt.Sprint(v))
}

// appendNumber appends a number as JSON; what JSON has no number for is null.
func appendNumber(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return append(dst, "null"...)
	case f == math.Trunc(f) && math.Abs(f) < 1<<63:
		return strconv.AppendInt(dst, int64(f), 10)
	case f == math.Trunc(f) && f > 0 && f < 1<<64:
		return strconv.AppendUint(dst, uint64(f), 10)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

// Fielder is a filter state object whose fields %FILTER_STATE(key:FIELD:name)% prints.
type Fielder interface {
	// FilterStateField returns the text of a field, and false if there is none of that name.
	FilterStateField(name string) (string, bool)
}

// makeFilterState makes FILTER_STATE(key:PLAIN|TYPED|FIELD:name); TYPED, the default, is JSON.
func makeFilterState(param string, _ *Options) (op, error) {
	parts := strings.SplitN(param, ":", 3)
	key, kind := parts[0], "TYPED"
	if len(parts) > 1 {
		kind = parts[1]
	}
	switch {
	case key == "":
		return op{}, Error("Invalid filter state configuration, key cannot be empty.")
	case kind != "PLAIN" && kind != "TYPED" && kind != "FIELD":
		return op{}, Error("Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.")
	case (kind == "FIELD") != (len(parts) == 3):
		return op{}, Error("Invalid filter state serialize type, FIELD should be used with the field name.")
	}
	find := func(in *stream.Info) any {
		if o, ok := in.FilterState[key]; ok {
			return o.Value
		}
		return in.Conn.FilterState[key].Value
	}
	switch kind {
	case "PLAIN":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			return appendPlain(dst, find(in))
		}}, nil
	case "FIELD":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			if f, ok := find(in).(Fielder); ok {
				s, found := f.FilterStateField(parts[2])
				return append(dst, s...), found
			}
			return dst, false
		}}, nil
	}
	typed := func(dst []byte, in *stream.Info) ([]byte, bool) {
		v := find(in)
		if b, ok := v.([]byte); ok { // google.protobuf.BytesValue
			return append(base64.StdEncoding.AppendEncode(append(dst, '"'), b), '"'), true
		}
		return AppendJSON(dst, v), v != nil
	}
	return op{text: typed, raw: true}, nil
}

func appendPlain(dst []byte, v any) ([]byte, bool) {
	switch v := v.(type) {
	case nil:
		return dst, false
	case string:
		return append(dst, v...), true
	case []byte:
		return append(dst, v...), true
	case int64:
		return strconv.AppendInt(dst, v, 10), true
	case bool:
		return strconv.AppendBool(dst, v), true
	}
	return fmt.Append(dst, v), true
}
