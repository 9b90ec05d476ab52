package tlsctx

import (
	"net/netip"
	"testing"

	"sidecar/internal/config/configtest"
)

func TestProxyHeader(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddrPort("1.2.3.4:5"), netip.MustParseAddrPort("6.7.8.9:10")
	c := netip.MustParseAddrPort("[::1]:1")
	for _, x := range []struct {
		name     string
		v2       bool
		src, dst netip.AddrPort
		want     string
	}{
		{"v1", false, a, b, "PROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\n"},
		{"v1 of IPv6", false, c, c, "PROXY TCP6 ::1 ::1 1 1\r\n"},
		{"v1 of two families", false, a, c, "PROXY UNKNOWN\r\n"},
		{"v2", true, a, b, "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x06\x07\x08\x09\x00\x05\x00\x0a"},
		{"v2 of nothing", true, netip.AddrPort{}, netip.AddrPort{}, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			if got := string(proxyHeader(x.v2, x.src, x.dst)); got != x.want {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
}

func TestProxyFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, proxyFields, proxyConfigFields, socketFields)
}
