package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"sidecar/internal/config"
	"sidecar/internal/log"
	"sidecar/internal/server"
	"sidecar/xds/xdstest"
)

// proxy is a whole server in the test's process.
type proxy struct {
	t     testing.TB
	admin string
	logs  *logBuffer
	stop  context.CancelFunc
	ended chan error
	once  sync.Once
	err   error
}

const adminYAML = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n" +
	"node: {id: test, cluster: test}\n"

func options(t testing.TB, yaml string) (*server.Options, *logBuffer) {
	t.Helper()
	logs := &logBuffer{}
	return &server.Options{
		ConfigYAML: yaml, Concurrency: 2, AdminAddressPath: filepath.Join(t.TempDir(), "admin"),
		DrainTime: 10 * time.Second, FileFlushInterval: time.Second, FileFlushMinBytes: 1 << 16,
		StaticUnknown: config.RejectUnknown, DynamicUnknown: config.WarnUnknown, Logs: log.New(logs), Version: "test",
	}, logs
}

// start runs a server on a bootstrap and waits until its admin server answers. Its own ports are 0.
func start(t testing.TB, yaml string, change ...func(*server.Options)) *proxy {
	t.Helper()
	o, logs := options(t, adminYAML+yaml)
	for _, f := range change {
		f(o)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &proxy{t: t, logs: logs, stop: stop, ended: make(chan error, 1)}
	go func() { p.ended <- server.Run(ctx, o) }()
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
		if t.Failed() {
			t.Log(logs.String())
		}
	})
	p.wait("the admin server", func() bool {
		select {
		case err := <-p.ended:
			p.ended <- err
			t.Fatalf("the server ended: %v", err)
		default:
		}
		b, err := os.ReadFile(o.AdminAddressPath)
		p.admin = string(b)
		return err == nil && p.admin != ""
	})
	return p
}

// live is start, and the wait until it serves.
func live(t testing.TB, yaml string, change ...func(*server.Options)) *proxy {
	t.Helper()
	p := start(t, yaml, change...)
	p.wait("LIVE", func() bool { return strings.Contains(p.adminGet("/ready"), "LIVE") })
	return p
}

func (p *proxy) close() error {
	p.once.Do(func() {
		p.stop()
		p.err = <-p.ended
	})
	return p.err
}

// wait is the one way to wait: for a condition, looked at every few milliseconds.
func (p *proxy) wait(what string, cond func() bool) {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			p.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (p *proxy) adminDo(method, path string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, "http://"+p.admin+path, http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *proxy) adminGet(path string) string { p.t.Helper(); return p.adminDo(http.MethodGet, path) }

// stat reads a counter or gauge; 0 if there is none.
func (p *proxy) stat(name string) int {
	p.t.Helper()
	for line := range strings.Lines(p.adminGet("/stats")) {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil {
				p.t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

func (p *proxy) waitStat(name string, want int) {
	p.t.Helper()
	p.wait(fmt.Sprintf("%s: %d", name, want), func() bool { return p.stat(name) >= want })
}

// listener is the address of a listener; empty if there is none.
func (p *proxy) listener(name string) string {
	p.t.Helper()
	for line := range strings.Lines(p.adminGet("/listeners")) {
		if addr, ok := strings.CutPrefix(line, name+"::"); ok {
			return strings.TrimSpace(addr)
		}
	}
	return ""
}

// waitListener waits until a listener is there.
func (p *proxy) waitListener(name string) (addr string) {
	p.t.Helper()
	p.wait("listener "+name, func() bool {
		addr = p.listener(name)
		return addr != ""
	})
	return addr
}

// patience bounds every wait.
const patience = 20 * time.Second

// nacked waits for a NACK whose text holds part.
func (p *proxy) nacked(srv *xdstest.Server, url, part string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	e, err := srv.WaitNACK(ctx, url, part)
	if err != nil {
		for _, e := range srv.Events() {
			p.t.Logf("%+v", e)
		}
		p.t.Fatalf("no NACK with %q: %v", part, err)
	}
	return e.Error
}

// acked waits for the ACK of a version.
func (p *proxy) acked(srv *xdstest.Server, url, version string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := srv.WaitACK(ctx, url, version); err != nil {
		p.t.Fatalf("no ACK of %s: %v", version, err)
	}
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	body   string
}

func get(ctx context.Context, rt http.RoundTripper, addr, path string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		return answer{}, err
	}
	res, err := rt.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b)}, err
}

// get asks a listener on a new connection.
func (p *proxy) get(addr, path string) answer {
	p.t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	a, err := get(p.t.Context(), tr, addr, path)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// noReuse is a transport for one request.
func noReuse(t *testing.T) *http.Transport {
	tr := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// traffic is clients that ask again and again, each on one kept connection.
type traffic struct {
	n      atomic.Int64
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex // guards below
	errs []error
	seen map[string]int
}

// load starts clients. tell maps each answer to what is counted, or to an error.
func (p *proxy) load(addr string, clients int, tell func(answer) (string, error)) *traffic {
	ctx, cancel := context.WithCancel(context.Background())
	l := &traffic{cancel: cancel, seen: map[string]int{}}
	for range clients {
		l.wg.Go(func() {
			tr := &http.Transport{MaxIdleConnsPerHost: 2}
			defer tr.CloseIdleConnections()
			for ctx.Err() == nil {
				// Only the loop ends, not the request: none may be lost.
				a, err := get(context.Background(), tr, addr, "/")
				what := ""
				if err == nil {
					what, err = tell(a)
				}
				l.note(what, err)
			}
		})
	}
	p.t.Cleanup(func() { l.stop() })
	return l
}

func (l *traffic) note(what string, err error) {
	l.n.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	l.seen[what]++
}

func (l *traffic) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[what]
}

func (l *traffic) stop() []error {
	l.cancel()
	l.wg.Wait()
	return l.errs
}

// more waits until so many more requests were answered.
func (l *traffic) more(p *proxy, n int64) {
	p.t.Helper()
	until := l.n.Load() + n
	p.wait("traffic", func() bool { return l.n.Load() >= until })
}

// lossless ends the traffic, which must have met no error.
func (l *traffic) lossless(t *testing.T) {
	t.Helper()
	if errs := l.stop(); len(errs) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(errs), l.n.Load(), errs[0])
	}
}

// body200 tells answers apart by their bodies.
func body200(a answer) (string, error) {
	if a.status != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", a.status, a.body)
	}
	return a.body, nil
}

// upstream answers every request with its name.
func upstream(t testing.TB, name string) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// resource reads a message from YAML.
func resource[M proto.Message](t testing.TB, m M, yaml string) M {
	t.Helper()
	if _, err := config.Parse("test", config.YAML, []byte(yaml), m, config.RejectUnknown); err != nil {
		t.Fatalf("%v in\n%s", err, yaml)
	}
	return m
}

func socketAddress(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

// logBuffer keeps what the server logs.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// runFails runs a server that must end with errors, and returns their texts.
func runFails(t *testing.T, change func(*server.Options)) []string {
	t.Helper()
	o, _ := options(t, "")
	change(o)
	err := server.Run(t.Context(), o)
	if err == nil {
		t.Fatal("no error")
	}
	var out []string
	for _, e := range config.Flatten(err) {
		out = append(out, e.Error())
	}
	return out
}

var errVersion = errors.New("not one plugin version")
