package attribute_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/attribute"
)

type maps map[abi.MapType]*header.Map

func (m maps) Headers(t abi.MapType) (*header.Map, abi.Status) { return m[t], abi.OK }

func headers(pairs ...[2]string) *header.Map {
	m := new(header.Map)
	for _, p := range pairs {
		m.Add(p[0], p[1])
	}
	return m
}

func source(t *testing.T) *attribute.Source {
	t.Helper()
	meta, err := structpb.NewStruct(map[string]any{"LABELS": map[string]any{"app": "a"}, "LIST": []any{"x", true}})
	if err != nil {
		t.Fatal(err)
	}
	space := map[string]map[string]any{"ns": {"k": "v", "n": 2.0, "b": true, "l": []any{"x"}, "nil": nil}}
	info := new(stream.Info)
	info.Reset(time.Unix(10, 5), &stream.ConnInfo{
		ID: 7, SNI: "sni", Chain: "chain", Direction: 1, ListenerMetadata: space,
		Remote:      stream.IPAddr(netip.MustParseAddrPort("10.0.0.1:99")),
		TLS:         &stream.TLSInfo{Version: "TLSv1.3", PeerPresented: true, Peer: stream.CertInfo{Subject: "CN=p", DNSSAN: []string{"d"}}},
		FilterState: map[string]stream.FilterObject{"of.conn": {Value: "c"}},
	})
	info.Cluster, info.RouteName, info.VirtualHost, info.Status, info.Details = "cl", "rt", "vh", 200, "via_upstream"
	info.Metadata, info.ClusterMetadata, info.BytesReceived, info.Protocol = space, space, 5, stream.HTTP11
	info.Upstream.Region, info.Upstream.Host = "r", stream.IPAddr(netip.MustParseAddrPort("10.0.0.2:80"))
	info.Attempts = 1
	return &attribute.Source{
		Info: info, Node: attribute.NewNode(&corev3.Node{
			Id: "node", Cluster: "nc", Metadata: meta, Locality: &corev3.Locality{Zone: "z"},
		}),
		Maps: maps{
			abi.RequestHeaders: headers([2]string{":path", "/a?b=c#d"}, [2]string{":authority", "h"}, [2]string{"x", "1"},
				[2]string{"x", "2"}, [2]string{"user-agent", "ua"}),
			abi.ResponseHeaders:  headers([2]string{":status", "200"}),
			abi.ResponseTrailers: headers([2]string{"grpc-status", "5"}),
		},
		Endpoints: func(string) (int, bool) { return 3, true },
	}
}

func number(n int64) string { return string(binary.LittleEndian.AppendUint64(nil, uint64(n))) }

func TestLookup(t *testing.T) {
	t.Parallel()
	s := source(t)
	if st := attribute.SetProperty(s.Info, "mine", []byte("p"), abi.Declared{ReadOnly: true}); st != abi.OK {
		t.Fatal(st)
	}
	if st := attribute.SetProperty(s.Info, "mine", []byte("q"), abi.Declared{}); st != abi.BadArgument {
		t.Errorf("a read-only property is changed: %v", st)
	}
	if st := attribute.SetState(s.Info, "envoy.string", []byte("e")); st != abi.OK {
		t.Errorf("envoy.string: %v", st)
	}
	if st := attribute.SetState(s.Info, "nobody's", nil); st != abi.NotFound {
		t.Errorf("an unknown object: %v", st)
	}
	for path, want := range map[string]string{
		"request|path": "/a?b=c#d", "request|url_path": "/a", "request|query": "b=c", "request|host": "h",
		"request|useragent": "ua", "request|headers|X": "1,2", "request|protocol": "HTTP/1.1", "request|size": number(5),
		"request|time": number(10e9 + 5), "response|code": number(200), "response|code_details": "via_upstream",
		"response|grpc_status": number(5), "source|address": "10.0.0.1:99", "source|port": number(99),
		"connection|id": number(7), "connection_id": number(7), "connection|mtls": "\x01",
		"connection|requested_server_name": "sni", "connection|tls_version": "TLSv1.3",
		"connection|subject_peer_certificate": "CN=p", "connection|dns_san_peer_certificate": "d",
		"upstream|address": "10.0.0.2:80", "upstream|num_endpoints": number(3), "upstream|request_attempt_count": number(1),
		"metadata|filter_metadata|ns|k": "v", "metadata|filter_metadata|ns|l|0": "x", "metadata|filter_metadata|ns|b": "\x01",
		"xds|cluster_name": "cl", "cluster_name": "cl", "xds|route_name": "rt", "route_name": "rt", "xds|virtual_host_name": "vh",
		"xds|filter_chain_name": "chain", "listener_direction": number(1), "xds|cluster_metadata|filter_metadata|ns|k": "v",
		"cluster_metadata|filter_metadata|ns|k": "v", "listener_metadata|filter_metadata|ns|k": "v",
		"xds|node|id": "node", "node|id": "node", "node|cluster": "nc", "node|metadata|LABELS|app": "a",
		"node|metadata|LIST|1": "\x01", "node|locality|zone": "z", "mine": "p", "filter_state|wasm.mine": "p",
		"filter_state|envoy.string": "e", "filter_state|of.conn": "c",
	} {
		if got, st := get(s, path); st != abi.OK || got != want {
			t.Errorf("%s: %q %v, want %q", path, got, st, want)
		}
	}
	for path, want := range map[string]abi.Status{
		"request": abi.SerializationFailure, "response": abi.SerializationFailure, "nope": abi.NotFound, "request|nope": abi.NotFound,
		"request|referer": abi.NotFound, "metadata|filter_metadata|no": abi.NotFound, "metadata|filter_metadata|ns|k|x": abi.NotFound,
		"metadata|filter_metadata|ns|nil": abi.SerializationFailure, "node|user_agent_name": abi.NotFound, "xds|nope": abi.NotFound,
		"upstream|transport_failure_reason": abi.NotFound, "filter_state|no": abi.NotFound, "response|backend_latency": abi.NotFound,
	} {
		if _, st := get(s, path); st != want {
			t.Errorf("%s: %v, want %v", path, st, want)
		}
	}
}

func get(s *attribute.Source, path string) (string, abi.Status) {
	v, st := s.Lookup(zeros(path))
	if st != abi.OK {
		return "", st
	}
	b, st := v.Append(nil)
	return string(b), st
}

func zeros(path string) string {
	b := []byte(path)
	for i := range b {
		if b[i] == '|' {
			b[i] = 0
		}
	}
	return string(b)
}

func TestMessages(t *testing.T) {
	t.Parallel()
	s := source(t)
	node, m, l := new(corev3.Node), new(corev3.Metadata), new(corev3.Locality)
	for path, msg := range map[string]proto.Message{"xds|node": node, "xds|cluster_metadata": m, "upstream|locality": l} {
		b, st := get(s, path)
		if err := proto.Unmarshal([]byte(b), msg); err != nil || st != abi.OK {
			t.Errorf("%s: %v %v", path, st, err)
		}
	}
	if node.GetId() != "node" || m.GetFilterMetadata()["ns"].GetFields()["k"].GetStringValue() != "v" || l.GetRegion() != "r" {
		t.Errorf("%v %v %v", node, m, l)
	}
}

func TestRoot(t *testing.T) {
	t.Parallel()
	s := &attribute.Source{Node: attribute.NewNode(&corev3.Node{Id: "n"})}
	if got, st := get(s, "xds|node|id"); got != "n" || st != abi.OK {
		t.Errorf("%q %v", got, st)
	}
	for _, path := range []string{"request|path", "xds|cluster_name", "source|address", "mine"} {
		if _, st := get(s, path); st != abi.NotFound {
			t.Errorf("%s: %v", path, st)
		}
	}
	if st := attribute.SetProperty(nil, "x", nil, abi.Declared{}); st != abi.NotFound {
		t.Errorf("set without a stream: %v", st)
	}
}

// TestAllocs: the plain attributes cost no allocation.
func TestAllocs(t *testing.T) {
	s := source(t)
	var b []byte
	for _, path := range []string{"request|path", "request|size", "connection|mtls", "source|port", "request|headers|user-agent"} {
		p := zeros(path)
		if n := testing.AllocsPerRun(100, func() {
			v, _ := s.Lookup(p)
			b, _ = v.Append(b[:0])
		}); n > 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
	}
}
