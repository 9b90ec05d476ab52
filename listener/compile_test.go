package listener

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sidecar/api/stats"
	"sidecar/internal/config/configtest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.core.v3.ExtensionConfigSource", // internal/server
		"envoy.config.accesslog.v3.AccessLog",        // listener/accesslog
		"envoy.config.core.v3.Metadata",              // internal/config
		"envoy.config.listener.v3.FilterChainMatch",  // listener/chain
		"envoy.config.core.v3.SocketOption.SocketType.Stream",
	},
		listenerFields, balanceFields, deprecatedFields, chainFields, transportFields, filterFields,
		listenerFilterFields, predicateFields, matchSetFields, addressFields, socketAddressFields, pipeFields,
		additionalFields, keepaliveFields, overrideFields, socketOptionFields, socketTypeFields,
	)
}

func TestCompile_Errors(t *testing.T) {
	t.Parallel()
	one := chains("a")
	for name, c := range map[string]struct {
		parts []string
		want  string
	}{
		"no address":           {[]string{one}, "address: is required"},
		"bad address":          {[]string{`"address":{"socket_address":{"address":"localhost","port_value":1}}`, one}, "address.socket_address.address: malformed IP address: localhost"},
		"UDP":                  {[]string{`"address":{"socket_address":{"protocol":"UDP","address":"1.2.3.4","port_value":1}}`, one}, "address.socket_address.protocol: UDP"},
		"mode of abstract":     {[]string{`"address":{"pipe":{"path":"@x","mode":448}}`, one}, "address.pipe.mode: Cannot set mode"},
		"internal address":     {[]string{`"address":{"envoy_internal_address":{"server_listener_name":"x"}}`, one}, "address.envoy_internal_address"},
		"no chains":            {[]string{loopback}, "no filter chains specified"},
		"chain without":        {[]string{loopback, `"filter_chains":[{}]`}, "filter_chains[0].filters: must not be empty"},
		"same chains":          {[]string{loopback, chains("a", "b")}, "filter_chains[1].filter_chain_match: error adding listener '127.0.0.1:0': filter chain 'b' has the same matching rules"},
		"overlapping chains":   {[]string{loopback, chains(`a {"source_ports":[1,2]}`, `b {"source_ports":[2,3]}`)}, "filter_chains[1].filter_chain_match: error adding listener '127.0.0.1:0': multiple filter chains with overlapping matching rules"},
		"unknown filter":       {[]string{loopback, `"filter_chains":[{"filters":[{"name":"x","typed_config":{"@type":"type.googleapis.com/google.protobuf.BoolValue","value":true}}]}]`}, "filter_chains[0].filters[0].typed_config: network filter \"x\""},
		"bad filter":           {[]string{loopback, chains("a", `bad {"destination_port":1}`)}, "filter_chains[1].filters[0].typed_config: bad name"},
		"TLS":                  {[]string{loopback, `"filter_chains":[{"filters":[{"name":"echo","typed_config":{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"a"}}],"transport_socket":{"name":"tls","typed_config":{"@type":"type.googleapis.com/google.protobuf.BoolValue","value":true}}}]`}, "filter_chains[0].transport_socket.typed_config"},
		"unknown listener":     {[]string{loopback, one, `"listener_filters":[{"name":"x","typed_config":{"@type":"type.googleapis.com/google.protobuf.BoolValue","value":true}}]`}, "listener_filters[0].typed_config: listener filter \"x\""},
		"balance by others":    {[]string{loopback, one, `"connection_balance_config":{"extend_balance":{"name":"dlb","typed_config":{"@type":"type.googleapis.com/google.protobuf.BoolValue","value":true}}}`}, "connection_balance_config.extend_balance"},
		"option without":       {[]string{loopback, one, `"socket_options":[{"level":1,"name":2}]`}, "socket_options[0]: needs one of int_value, buf_value"},
		"additional keepalive": {[]string{loopback, one, `"additional_addresses":[{"address":{"socket_address":{"address":"x","port_value":0}}}]`}, "additional_addresses[0].address.socket_address.address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, DrainPolicy{})
			before := 0
			r.store.Each(false, func(*stats.Sample) { before++ })
			err, _ := r.try("l", c.parts...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v\nwant %q in it", err, c.want)
			}
			after := 0
			r.store.Each(false, func(*stats.Sample) { after++ })
			if after != before {
				t.Errorf("%d stats of a refused listener are left", after-before)
			}
			if len(r.Snapshot()) != 0 || r.stat("listener_manager.listener_create_failure") != 1 {
				t.Errorf("listeners %v, failures %d", r.Snapshot(), r.stat("listener_manager.listener_create_failure"))
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, e := range r.made {
				if e.retired.Load() != 1 {
					t.Errorf("filter %q of a refused listener was retired %d times", e.name, e.retired.Load())
				}
			}
		})
	}
}

func TestCompile_AllErrors(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	err, _ := r.try("l", `"listener_filters_timeout":"-1s"`, `"enable_mptcp":true`, chains("bad"))
	for _, want := range []string{"address", "listener_filters_timeout", "enable_mptcp", "filter_chains[0]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestDraining(t *testing.T) {
	t.Parallel()
	const low, high = uint64(1), ^uint64(0)
	process := NewDraining(DrainPolicy{Time: time.Hour})
	child := &Draining{policy: process.policy, parent: process}
	modify := &Draining{policy: process.policy, parent: process, modifyOnly: true}
	all := []*Draining{process, child, modify}
	said := func(roll uint64) (out []bool) {
		for _, d := range all {
			out = append(out, d.Draining(roll))
		}
		return out
	}
	if got := said(low); !slices.Equal(got, []bool{false, false, false}) {
		t.Errorf("before: %v", got)
	}
	process.FailHealthCheck(true)
	if got := said(high); !slices.Equal(got, []bool{true, true, false}) {
		t.Errorf("health check failed: %v, MODIFY_ONLY must not drain", got)
	}
	process.FailHealthCheck(false)
	child.Begin()
	if got := said(low); !slices.Equal(got, []bool{false, true, false}) {
		t.Errorf("one chain drains: %v", got)
	}
	if got := said(high); !slices.Equal(got, []bool{false, false, false}) {
		t.Errorf("at the beginning of a gradual drain the highest roll is not drawn: %v", got)
	}
	process.Begin()
	if got := said(low); !slices.Equal(got, []bool{true, true, true}) {
		t.Errorf("the process drains: %v", got)
	}
	now := NewDraining(DrainPolicy{Time: time.Hour, Immediate: true})
	now.Begin()
	if !now.Draining(high) {
		t.Error("an immediate drain waits")
	}
}
