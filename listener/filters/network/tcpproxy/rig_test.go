package tcpproxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/discover"
	"sidecar/cluster/pool"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/internal/task"
	"sidecar/internal/wire"
)

// logLines records copies of what is logged.
type logLines chan stream.Info

func (l logLines) Log(info *stream.Info) { l <- *info }

type noXDS struct{}

func (noXDS) Subscribe(source.Spec) source.Subscription { panic("static clusters only") }

// rig is a TCP proxy behind a socket, with clusters.
type rig struct {
	t     testing.TB
	store *stats.Store
	cfg   *Config
	logs  logLines
	addr  string
	high  int
	tls   atomic.Pointer[tls.Config] // what clients have to speak; nil: plaintext
}

func newRig(t testing.TB, proxy string, clusters map[string][]string) *rig {
	t.Helper()
	r := &rig{t: t, store: stats.New(), logs: make(logLines, 20_000)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	m := cluster.NewManager(cluster.Options{
		Ctx: ctx, Scope: r.store.Root(), Log: slog.New(slog.DiscardHandler), Concurrency: 2, Random: rand.Uint64,
		Subscriber:  noXDS{},
		NewResolver: func(discover.ResolverOptions) discover.Resolver { return nil },
		NewCodec:    func(*wire.Conn, *cluster.HTTPOptions, pool.Handler) pool.Codec { return nil },
	})
	for name, hosts := range clusters {
		if err := m.AddStatic(staticCluster(t, name, hosts)); err != nil {
			t.Fatal(err)
		}
	}
	msg := &tcpv3.TcpProxy{}
	if err := protojson.Unmarshal([]byte(proxy), msg); err != nil {
		t.Fatal(err)
	}
	var err error
	r.cfg, err = Compile(msg, filter.NetworkContext{Scope: r.store.Root()}, Env{
		Clusters: m, Random: rand.Uint64,
		AccessLogs: func(*config.Path, []*accesslogv3.AccessLog, *config.Errors) []AccessLog { return []AccessLog{r.logs} },
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := r.listen()
	t.Cleanup(func() {
		stop()
		r.cfg.Retire()
		cancel()
		m.Close()
	})
	return r
}

func staticCluster(t testing.TB, name string, hosts []string) *clusterv3.Cluster {
	t.Helper()
	var list []string
	for _, h := range hosts {
		host, port, err := net.SplitHostPort(h)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf(`{"endpoint":{"address":{"socket_address":{"address":%q,"port_value":%s}}}}`, host, port))
	}
	msg := &clusterv3.Cluster{}
	if err := protojson.Unmarshal([]byte(fmt.Sprintf(`{"name":%q,"connect_timeout":"5s","load_assignment":{"cluster_name":%q,
		"endpoints":[{"lb_endpoints":[%s]}]}}`, name, name, strings.Join(list, ","))), msg); err != nil {
		t.Fatal(err)
	}
	return msg
}

// listen serves connections until the function it returns is called, which waits for their end.
func (r *rig) listen() (stop func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Add(1)
			task.Go("test connection", func() {
				defer wg.Done()
				defer nc.Close()
				w, err := wire.New(nc, wire.Options{High: r.high})
				if err != nil {
					r.t.Error(err)
					return
				}
				if cfg := r.tls.Load(); cfg != nil {
					if _, err := w.Secure(context.Background(), func(nc net.Conn) *tls.Conn { return tls.Server(nc, cfg) }); err != nil { //nolint:forbidigo // a test
						r.t.Error(err)
						return
					}
				}
				info := &stream.ConnInfo{Start: time.Now(), Local: addrOf(nc.LocalAddr()), Remote: addrOf(nc.RemoteAddr())}
				r.cfg.Serve(stream.NewTurn(), w, info, nil)
			}, func(p *task.Panic) { r.t.Error(p) })
		}
	})
	return func() {
		_ = ln.Close()
		wg.Wait()
	}
}

func addrOf(a net.Addr) stream.Addr { return stream.IPAddr(a.(*net.TCPAddr).AddrPort()) }

func (r *rig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // a hang is a failure
	return c.(*net.TCPConn)
}

// line waits for the next log line.
func (r *rig) line() stream.Info {
	r.t.Helper()
	select {
	case l := <-r.logs:
		return l
	case <-time.After(20 * time.Second):
		r.t.Fatal("no log line")
		return stream.Info{}
	}
}

func (r *rig) stat(name string) uint64 {
	var n uint64
	r.store.Each(false, func(s *stats.Sample) {
		if string(s.Name) == name {
			if n = s.Counter(); s.Kind == stats.KindGauge {
				n = uint64(s.Gauge())
			}
		}
	})
	return n
}

// wants compares stats.
func (r *rig) wants(want map[string]uint64) {
	r.t.Helper()
	for name, n := range want {
		if got := r.stat(name); got != n {
			r.t.Errorf("%s = %d, want %d", name, got, n)
		}
	}
}

// upstream accepts connections and hands each to serve.
func upstream(t testing.TB, serve func(c *net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// echo hides the types, for which io.Copy would splice through pipes of its own.
func echo(c *net.TCPConn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }

// deadAddr is where nobody listens.
func deadAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
