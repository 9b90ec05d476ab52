package config_test

import (
	"errors"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
)

var keepaliveFields = config.Fields[*corev3.TcpKeepalive]{
	Used:    "keepalive_time",
	OffOnly: "keepalive_interval",
	NoOp:    map[string]string{"keepalive_probes": "for this test"},
}

func TestFields_Check(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		msg  *corev3.TcpKeepalive
		want string
	}{
		{"nil", nil, ""},
		{"empty", &corev3.TcpKeepalive{}, ""},
		{"used", &corev3.TcpKeepalive{KeepaliveTime: wrapperspb.UInt32(3)}, ""},
		{"no-op", &corev3.TcpKeepalive{KeepaliveProbes: wrapperspb.UInt32(3)}, ""},
		{"off", &corev3.TcpKeepalive{KeepaliveInterval: wrapperspb.UInt32(0)}, ""},
		{
			"on", &corev3.TcpKeepalive{KeepaliveInterval: wrapperspb.UInt32(1)},
			"a.keepalive_interval: is not supported, and can only be switched off",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var errs config.Errors
			keepaliveFields.Check(config.Field("a"), tt.msg, &errs)
			got := ""
			if err := errs.Err(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFields_CheckRefusesWhatNoListNames(t *testing.T) {
	t.Parallel()
	// "address" is the end of a listed name, and not listed.
	table := config.Fields[*corev3.SocketAddress]{Used: "ipv4_address named_port"}
	var errs config.Errors
	table.Check(nil, &corev3.SocketAddress{Address: "x", PortSpecifier: &corev3.SocketAddress_NamedPort{NamedPort: "y"}}, &errs)
	if err := errs.Err(); err == nil || err.Error() != "address: is not supported" {
		t.Errorf("got %v", err)
	}
}

func TestFields_CheckCost(t *testing.T) {
	msg := &corev3.TcpKeepalive{KeepaliveTime: wrapperspb.UInt32(3), KeepaliveProbes: wrapperspb.UInt32(3)}
	var errs config.Errors
	if n := testing.AllocsPerRun(100, func() { keepaliveFields.Check(nil, msg, &errs) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
}

func TestDataSourceFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, config.DataSourceFields, keepaliveFields)
}

func TestErrors(t *testing.T) {
	t.Parallel()
	var inner config.Errors
	inner.Add(config.Field("b").Index(2).Key("k").Field("c"), "is required")
	inner.Add(nil, "is odd")
	inner.Add(nil, "is odd")
	var outer config.Errors
	outer.Wrap(config.Field("a").Index(0), inner.Err())
	outer.Wrap(config.Field("z"), nil)
	want := "a[0].b[2][\"k\"].c: is required\na[0]: is odd"
	if got := outer.Err().Error(); got != want {
		t.Errorf("got %s", got)
	}
	for range 500 {
		outer.Addf(config.Field("n"), "error %d", outer.Len())
	}
	if outer.Len() != 502 || !strings.HasSuffix(outer.Err().Error(), "\nand 302 more errors") {
		t.Errorf("%d errors, %s", outer.Len(), outer.Err())
	}
}

func TestErrors_ConsequencesOfLoading(t *testing.T) {
	t.Parallel()
	var errs config.Errors
	errs.Wrap(nil, &config.Error{File: "f", Line: 3, Path: "a.b[1]", Err: errors.New("is odd")})
	for _, path := range []*config.Path{
		config.Field("a.b").Index(1), config.Field("a.b").Index(1).Field("c").Key("x.y"),
		config.Field("a.b").Index(11), config.Field("a.b"), nil,
	} {
		errs.Add(path, "is required")
	}
	want := "f:3: a.b[1]: is odd\na.b[11]: is required\na.b: is required\nis required"
	if got := errs.Err().Error(); got != want {
		t.Errorf("got %s", got)
	}
}
