package cluster_test

import (
	"testing"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
)

// TestOriginalDst_Precedence looks for the destination where Envoy does, in its order.
func TestOriginalDst_Precedence(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.add(`
name: o
type: ORIGINAL_DST
lb_policy: CLUSTER_PROVIDED
original_dst_lb_config:
  use_http_header: true
  upstream_port_override: 9
  metadata_key: {key: ns, path: [{key: a}, {key: b}]}
`)
	metadata := func(v any) map[string]map[string]any {
		return map[string]map[string]any{"ns": {"a": map[string]any{"b": v}}}
	}
	filterState := map[string]stream.FilterObject{
		"envoy.network.transport_socket.original_dst_address": {Value: "10.0.0.1:1"},
	}
	h := &header.Map{}
	h.Add("x-envoy-original-dst-host", "10.0.0.4:1")
	conn := &stream.ConnInfo{Local: stream.IPAddr(listen(t)), LocalRestored: true}
	for _, x := range []struct {
		name, want string
		ctx        cluster.Context
	}{
		{"filter state", "10.0.0.1:9", cluster.Context{
			Info: &stream.Info{FilterState: filterState, Metadata: metadata("10.0.0.2:1")}, Headers: h, Conn: conn,
		}},
		{"metadata", "10.0.0.2:9", cluster.Context{Info: &stream.Info{Metadata: metadata("10.0.0.2:1")}, Headers: h, Conn: conn}},
		{"metadata of the connection", "10.0.0.3:9", cluster.Context{
			Info: &stream.Info{}, Headers: h, Conn: &stream.ConnInfo{Metadata: metadata("10.0.0.3:1")},
		}},
		{"header", "10.0.0.4:9", cluster.Context{Info: &stream.Info{Metadata: metadata("x")}, Headers: h, Conn: conn}},
		{"connection", "127.0.0.1:9", cluster.Context{Info: &stream.Info{Metadata: metadata(1.0)}, Conn: conn}},
	} {
		u := newUser()
		u.in(func(turn *stream.Turn) {
			_, _ = c.NewStream(turn, &x.ctx, u.target(), &u.attempt)
			if u.attempt.Host == nil || u.attempt.Host.Addr().String() != x.want {
				t.Errorf("%s: %v, want %s", x.name, u.attempt.Host, x.want)
			}
			u.attempt.Cancel(turn)
		})
	}
}
