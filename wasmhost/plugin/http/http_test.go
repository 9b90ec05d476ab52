package http_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	protobuf "google.golang.org/protobuf/proto"

	wasmv1 "sidecar/api/sidecar/wasm/v1"
	"sidecar/wasmhost"
	wasmhttp "sidecar/wasmhost/plugin/http"
)

type proto = protobuf.Message

func TestHeaders(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "http_headers")})
	x := p.begin([][2]string{{"a", "b"}}).wait()
	if x.status != "200" {
		t.Fatalf("status %s", x.status)
	}
	seen := <-p.seen
	v, _ := seen.Get("x-header-count")
	n, err := strconv.Atoi(v)
	if err != nil || n != seen.Len()-1 {
		t.Errorf("x-header-count is %q of %d headers", v, seen.Len())
	}
}

func TestVersionOnResponses(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "version"), configuration: "v1"})
	if v := p.begin(nil, "hello").wait().header("x-plugin-version"); v != "v1" {
		t.Errorf("x-plugin-version is %q", v)
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "body")})
	for _, tc := range []struct{ name, request, response, want string }{
		{"untouched", "", "", "hello world"},
		{"append", "append", "", "hello world.append"},
		{"replace", "replace", "", "replaced"},
		{"buffer and change", "upper", "", "HELLO WORLD"},
		{"answer from the body", "reply", "", "hello world"},
		{"response: append", "", "append", "hello world.append"},
		{"response: replace", "", "replace", "replaced"},
		{"response: buffer and change", "", "upper", "HELLO WORLD"},
		{"both", "upper", "append", "HELLO WORLD.append"},
	} {
		var h [][2]string
		if tc.request != "" {
			h = append(h, [2]string{"x-body", tc.request})
		}
		if tc.response != "" {
			h = append(h, [2]string{"x-response", tc.response})
		}
		x := p.begin(h, "hello", " ", "world").wait()
		if got := x.body.String(); got != tc.want || x.status != "200" {
			t.Errorf("%s: %s %q, want %q", tc.name, x.status, got, tc.want)
		}
		if (tc.request == "reply") != (x.header("x-replied") == "yes") {
			t.Errorf("%s: x-replied is %q", tc.name, x.header("x-replied"))
		}
	}
}

func TestBufferLimit(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "body"), bufferLimit: 16})
	if x := p.begin([][2]string{{"x-body", "upper"}}, "more than ", "sixteen bytes").wait(); x.status != "413" {
		t.Errorf("status %s", x.status)
	}
}

func TestTrapsByPolicy(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		policy       wasmv3.FailurePolicy
		legacy       bool
		first, later string
	}{
		{"closed", wasmv3.FailurePolicy_FAIL_CLOSED, false, "503", "503"},
		{"open", wasmv3.FailurePolicy_FAIL_OPEN, false, "503", "200"},
		{"fail_open", wasmv3.FailurePolicy_UNSPECIFIED, true, "200", "200"},
		{"reload", wasmv3.FailurePolicy_FAIL_RELOAD, false, "503", "503"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, settings{file: needPlugin(t, "trap"), policy: tc.policy, legacyOpen: tc.legacy})
			if x := p.begin([][2]string{{"x-trap", "none"}}).wait(); x.status != "200" {
				t.Errorf("before: %s", x.status)
			}
			if x := p.begin([][2]string{{"x-trap", "request"}}).wait(); x.status != tc.first || x.body.String() != "" {
				t.Errorf("the one that traps: %s %q", x.status, x.body.String())
			}
			if x := p.begin(nil).wait(); x.status != tc.later {
				t.Errorf("after: %s", x.status)
			}
			if tc.policy != wasmv3.FailurePolicy_FAIL_RELOAD {
				return
			}
			for begin := time.Now(); p.begin(nil).wait().status != "200"; {
				if time.Since(begin) > 10*time.Second {
					t.Fatal("not reloaded")
				}
			}
		})
	}
}

func TestTrapPlaces(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		place, status string
		reset         bool
	}{
		{"request", "503", false},
		{"request-body", "503", false},
		{"response", "503", false},
		{"response-body", "200", true},
		{"log", "200", false},
		{"memory", "503", false},
	} {
		t.Run(tc.place, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, settings{file: needPlugin(t, "trap"), memory: 16 << 20})
			x := p.begin([][2]string{{"x-trap", tc.place}}, "body").wait()
			if x.reset != tc.reset || x.status != tc.status {
				t.Errorf("status %s, reset %v", x.status, x.reset)
			}
			if x := p.begin(nil).wait(); x.status != "503" {
				t.Errorf("after: %s", x.status)
			}
		})
	}
}

// TestLoop has one stream loop for ever while others wait for the same VM: it is answered soon after
// the deadline, and so are they.
func TestLoop(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{
		file: needPlugin(t, "looping"), policy: wasmv3.FailurePolicy_FAIL_RELOAD, deadline: 100 * time.Millisecond, concurrency: 1,
	})
	begin := time.Now()
	looping := make(chan *exchange)
	go func() { looping <- p.begin([][2]string{{"x-loop", "1"}}) }()
	var others []*exchange
	for range 50 {
		others = append(others, p.begin(nil))
	}
	x := (<-looping).wait()
	if x.status != "503" {
		t.Errorf("the one that loops: %s", x.status)
	}
	for _, o := range others {
		if s := o.wait().status; s != "503" && s != "200" {
			t.Errorf("another: %s", s)
		}
	}
	t.Logf("all answered after %v", time.Since(begin))
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("took %v", d)
	}
	for start := time.Now(); p.begin(nil).wait().status != "200"; {
		if time.Since(start) > 10*time.Second {
			t.Fatal("not reloaded")
		}
	}
}

func TestCallOut(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, status, want, body string
		cluster                  string
	}{
		{"allowed", "200", "200", "", "auth"},
		{"denied", "401", "403", "no\n", "auth"},
		{"reset", "", "503", "no answer from auth\n", "auth"},
		{"unknown cluster", "", "503", "auth can't be asked\n", "nowhere"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := newCaller()
			p := newProxy(t, settings{file: needPlugin(t, "http_auth"), configuration: tc.cluster, calls: c})
			x := p.begin(nil, "body")
			if tc.cluster == "auth" {
				call := <-c.calls
				if v, _ := call.request.Headers.Get("x-path"); v != "/path" || call.request.Timeout != 5*time.Second || call.request.Parent == nil {
					t.Errorf("call: x-path %q, timeout %v", v, call.request.Timeout)
				}
				select {
				case <-x.done:
					t.Fatal("the request didn't wait for the answer")
				default:
				}
				if tc.status != "" {
					call.answer(tc.status, "no\n", [2]string{"x-user", "me"})
				} else {
					call.reset()
				}
			}
			x.wait()
			want := tc.body
			if tc.want == "200" {
				want = "body"
				seen := <-p.seen
				if v, _ := seen.Get("x-auth"); v != "me" {
					t.Errorf("x-auth is %q", v)
				}
			}
			if x.status != tc.want || x.body.String() != want {
				t.Errorf("%s %q", x.status, x.body.String())
			}
		})
	}
}

// TestAbortWhileCallIsOut ends a stream that waits for an answer; the answer comes later.
func TestAbortWhileCallIsOut(t *testing.T) {
	t.Parallel()
	c := newCaller()
	p := newProxy(t, settings{file: needPlugin(t, "http_auth"), calls: c})
	x := p.begin(nil)
	call := <-c.calls
	x.abort()
	x.wait()
	call.answer("200", "")
	y := p.begin(nil)
	(<-c.calls).answer("200", "")
	if y.wait().status != "200" {
		t.Error("the plugin doesn't serve any more")
	}
}

// TestSwap replaces the plugin over and over while requests run: each is answered by exactly one.
func TestSwap(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "version"), configuration: "v0"})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	served := make(chan string, 1<<16)
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case served <- p.begin(nil).wait().header("x-plugin-version"):
				}
			}
		})
	}
	for i := range 100 {
		s := settings{file: plugin("version"), configuration: "v" + strconv.Itoa(i)}
		f := compile(t, p.host, s)
		if err := f.Warm(context.Background()); err != nil {
			t.Fatal(err)
		}
		p.factory.Swap(f).Retire()
	}
	for _, bad := range []string{"broken", "trap"} {
		s := settings{file: plugin("version"), configuration: bad}
		if err := compile(t, p.host, s).Warm(context.Background()); err == nil || !strings.Contains(err.Error(), "Unable to create Wasm plugin") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	close(stop)
	wg.Wait()
	close(served)
	n := 0
	for v := range served {
		n++
		if !strings.HasPrefix(v, "v") || strings.Contains(v, ",") {
			t.Fatalf("a response has x-plugin-version %q", v)
		}
	}
	if n == 0 {
		t.Error("nothing was served")
	}
	p.factory.Load().Retire()
	p.host.Close()
	if p.host.VMs() != 0 {
		t.Errorf("%d VMs are left", p.host.VMs())
	}
}

// TestContention has many streams use one VM at once.
func TestContention(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "body"), concurrency: 1})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				mode := []string{"upper", "append", "replace", "reply"}[(i+j)%4]
				x := p.begin([][2]string{{"x-body", mode}}, "hello", " ", "world").wait()
				want := map[string]string{
					"upper": "HELLO WORLD", "append": "hello world.append", "replace": "replaced", "reply": "hello world",
				}[mode]
				if got := x.body.String(); got != want {
					t.Errorf("%s: %s %q, want %q", mode, x.status, got, want)
				}
			}
		})
	}
	wg.Wait()
}

// TestContentionOverLimit has bodies come faster than the VM: that fails no stream, since the plugin
// asked for no buffering.
func TestContentionOverLimit(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "body"), concurrency: 1, bufferLimit: 16})
	chunk := strings.Repeat("x", 20)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 50 {
				x := p.begin([][2]string{{"x-body", "append"}}, chunk, chunk).wait()
				if got, want := x.body.String(), chunk+chunk+".append"; x.status != "200" || got != want {
					t.Errorf("%s %q, want %q", x.status, got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestPanic has the proxy panic while a stream owns the only VM: others don't wait for it.
func TestPanic(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{
		file: needPlugin(t, "body"), concurrency: 1, policy: wasmv3.FailurePolicy_FAIL_RELOAD,
	})
	p.panics.Store(true)
	if x := p.begin(nil).wait(); x.status != "" {
		t.Errorf("status %s", x.status)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if x := p.begin(nil).wait(); x.status == "200" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the plugin is not back")
		}
	}
}

// TestGo builds a plugin with Go's own toolchain, which asks most of WASI.
func TestGo(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds a plugin")
	}
	file := filepath.Join(t.TempDir(), "go.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, ".")
	cmd.Dir = filepath.Join("..", "..", "..", "testdata", "plugins", "go_headers")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var took [2]time.Duration
	for i, own := range []func(*wasmv1.Wasm){nil, isolated} {
		var log bytes.Buffer
		p := newProxy(t, settings{file: file, log: slog.New(slog.NewTextHandler(&log, nil)), own: own})
		for n := range 200 {
			begin := time.Now()
			if x := p.begin(nil).wait(); x.status != "200" {
				t.Fatalf("status %s\n%s", x.status, log.String())
			}
			if n >= 100 {
				took[i] += time.Since(begin) / 100
			}
			if v, _ := (<-p.seen).Get("x-from"); v != "go" {
				t.Fatalf("x-from is %q", v)
			}
		}
		if !strings.Contains(log.String(), "wasm log p r v: started by a goroutine") {
			t.Errorf("log: %s", log.String())
		}
	}
	t.Logf("a request takes %v, with isolation %v", took[0], took[1])
}

var _ wasmhost.Owner = (*wasmhttp.Filter)(nil)
