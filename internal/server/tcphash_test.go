package server_test

import (
	"io"
	"net"
	"strings"
	"testing"
)

// TestTCPHashPolicy: connections of one client go to one host.
func TestTCPHashPolicy(t *testing.T) {
	t.Parallel()
	var hosts []string
	for _, name := range []string{"a", "b", "c", "d"} {
		var lc net.ListenConfig
		ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, name)
				_ = c.Close()
			}
		}()
		hosts = append(hosts, ln.Addr().String())
	}
	yaml := balanced("", "    lb_policy: MAGLEV\n", hosts...)
	begin, end := strings.Index(yaml, "      - name: hcm"), strings.Index(yaml, "  clusters:")
	yaml = yaml[:begin] + `      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: c
          hash_policy: [{source_ip: {}}]
` + yaml[end:]
	p := live(t, yaml)
	seen := map[string]bool{}
	for range 12 {
		var d net.Dialer
		c, err := d.DialContext(t.Context(), "tcp", p.listener("l"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		seen[string(b)] = true
	}
	if len(seen) != 1 {
		t.Errorf("one client is at %v", seen)
	}
}
