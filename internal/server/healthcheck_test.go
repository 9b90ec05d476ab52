package server_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// patient is an upstream that tells checks what it is told to: a status, and whether it is degraded.
type patient struct {
	status   atomic.Int64
	degraded atomic.Bool
	leave    atomic.Bool // requests are answered with x-envoy-immediate-health-check-fail
	checks   atomic.Int64
	agent    atomic.Value
	addr     string
}

func newPatient(t *testing.T, name string) *patient {
	p := &patient{}
	p.status.Store(http.StatusOK)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/healthz") {
			if p.leave.Load() {
				w.Header().Set("X-Envoy-Immediate-Health-Check-Fail", "1")
			}
			_, _ = io.WriteString(w, name)
			return
		}
		p.checks.Add(1)
		p.agent.Store(r.UserAgent() + " " + r.Host + " " + r.Proto + " " + r.Header.Get("X-More"))
		if p.degraded.Load() {
			w.Header().Set("X-Envoy-Degraded", "1")
		}
		w.WriteHeader(int(p.status.Load()))
		_, _ = io.WriteString(w, "status: fine")
	}))
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.Config.Protocols = &protocols
	s.Start()
	t.Cleanup(s.Close)
	p.addr = s.Listener.Addr().String()
	return p
}

const quick = "timeout: 5s, interval: 0.02s, no_traffic_interval: 0.02s, unhealthy_threshold: 2, healthy_threshold: 2"

func TestHealthChecks_HTTP(t *testing.T) {
	t.Parallel()
	for codec, proto := range map[string]string{"HTTP1": "HTTP/1.1", "HTTP2": "HTTP/2.0"} {
		t.Run(codec, func(t *testing.T) {
			t.Parallel()
			a, b := newPatient(t, "a"), newPatient(t, "b")
			b.status.Store(http.StatusServiceUnavailable)
			p := live(t, balanced("", `
    common_lb_config: {healthy_panic_threshold: {value: 0}}
    health_checks: [{`+quick+`, http_health_check: {path: /healthz, host: check.test, codec_client_type: `+codec+`,
      request_headers_to_add: [{header: {key: x-more, value: "1"}}], receive: [{text: "66696e65"}]}}]
`, a.addr, b.addr))
			l := p.listener("l")
			for range 8 {
				if got := p.get(l, "/"); got.body != "a" {
					t.Fatalf("%d %q of a host that is not healthy", got.status, got.body)
				}
			}
			if got := a.agent.Load(); got != "Envoy/HC check.test "+proto+" 1" {
				t.Errorf("checked by %q", got)
			}
			if page := p.adminGet("/clusters"); strings.Count(page, "health_flags::/failed_active_hc\n") != 1 {
				t.Errorf("not one host has failed:\n%s", page)
			}
			b.status.Store(http.StatusOK)
			a.degraded.Store(true)
			p.wait("the other host", func() bool {
				return p.stat("cluster.c.health_check.degraded") == 1 && p.stat("cluster.c.health_check.healthy") == 2 &&
					p.stat("cluster.c.membership_healthy") == 1
			})
			if page := p.adminGet("/clusters"); strings.Count(page, "health_flags::/degraded_active_hc\n") != 1 {
				t.Errorf("not one host is degraded:\n%s", page)
			}
			p.wait("the host that is not", func() bool { return p.get(l, "/").body == "b" })
			b.leave.Store(true)
			p.wait("a passive failure", func() bool {
				p.get(l, "/")
				return p.stat("cluster.c.health_check.passive_failure") == 1
			})
			a.status.Store(http.StatusInternalServerError)
			p.wait("no host at all", func() bool { return p.get(l, "/").status == http.StatusServiceUnavailable })
			if p.stat("cluster.c.health_check.network_failure") != 0 || p.stat("cluster.c.health_check.failure") == 0 {
				t.Error("failures are miscounted")
			}
		})
	}
}

// TestHealthChecks_TCP: what is sent and expected, and connecting alone.
func TestHealthChecks_TCP(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var good atomic.Bool
	good.Store(true)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 4)
				if _, err := io.ReadFull(c, b); err != nil || string(b) != "PING" {
					return
				}
				answer := "xPOxNG"
				if !good.Load() {
					answer = "NO"
				}
				_, _ = io.WriteString(c, answer)
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close() })
	checked := upstream(t, "a")
	yaml := balanced("", `
    common_lb_config: {healthy_panic_threshold: {value: 0}}
    health_checks: [{`+quick+`, tcp_health_check: {send: {text: "50494e47"}, receive: [{text: "504f"}, {text: "4e47"}]}}]
`, checked)
	yaml = strings.Replace(yaml, "{endpoint: {address: ",
		fmt.Sprintf("{endpoint: {health_check_config: {address: %s}, address: ", socketAddress(ln.Addr().String())), 1)
	p := live(t, yaml)
	if got := p.get(p.listener("l"), "/"); got.body != "a" {
		t.Fatalf("%d %q", got.status, got.body)
	}
	good.Store(false)
	p.wait("the failure", func() bool { return p.get(p.listener("l"), "/").status == http.StatusServiceUnavailable })
	if p.stat("cluster.c.health_check.network_failure") < 2 {
		t.Error("not counted")
	}
	good.Store(true)
	p.wait("the recovery", func() bool { return p.get(p.listener("l"), "/").status == http.StatusOK })

	q := live(t, balanced("", "    health_checks: [{"+quick+", tcp_health_check: {}}]\n", checked, "127.0.0.1:1"))
	q.waitStat("cluster.c.health_check.network_failure", 1)
	if q.stat("cluster.c.membership_healthy") != 1 {
		t.Error("connecting does not tell the hosts apart")
	}
}

func TestHealthChecks_GRPC(t *testing.T) {
	t.Parallel()
	var serving atomic.Bool
	serving.Store(true)
	var asked atomic.Value
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/grpc.health.v1.Health/Check" {
			_, _ = io.WriteString(w, "a")
			return
		}
		asked.Store(r.Host + " " + r.Header.Get("Content-Type") + " " + string(body[5:]))
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		answer := []byte{0, 0, 0, 0, 2, 8, 1}
		if !serving.Load() {
			answer[6] = 2
		}
		binary.BigEndian.PutUint32(answer[1:], 2)
		_, _ = w.Write(answer)
		w.Header().Set("Grpc-Status", "0")
	}))
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	s.Config.Protocols = &protocols
	s.Start()
	t.Cleanup(s.Close)
	yaml := balanced("", `
    common_lb_config: {healthy_panic_threshold: {value: 0}}
    http2_protocol_options: {}
    health_checks: [{`+quick+`, grpc_health_check: {service_name: shop, authority: shop.test}}]
`, s.Listener.Addr().String())
	p := live(t, yaml)
	if got := p.get(p.listener("l"), "/"); got.body != "a" {
		t.Fatalf("%d %q", got.status, got.body)
	}
	if got := asked.Load(); got != "shop.test application/grpc \x0a\x04shop" {
		t.Errorf("asked %q", got)
	}
	serving.Store(false)
	p.wait("the failure", func() bool { return p.get(p.listener("l"), "/").status == http.StatusServiceUnavailable })
	serving.Store(true)
	p.wait("the recovery", func() bool { return p.get(p.listener("l"), "/").status == http.StatusOK })
}
