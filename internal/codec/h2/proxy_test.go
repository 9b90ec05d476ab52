package h2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum")
	h := sha256.New()
	w.WriteHeader(http.StatusOK)
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Body.Read(buf)
		h.Write(buf[:n])
		if _, werr := w.Write(buf[:n]); werr != nil {
			return
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		if err != nil {
			break
		}
	}
	w.Header().Set("X-Sum", fmt.Sprintf("%x", h.Sum(nil)))
}

func TestPlain(t *testing.T) {
	t.Parallel()
	url, up := chain(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Path", r.URL.Path)
		_, _ = io.WriteString(w, strings.Repeat("a", 1024))
	})
	c := transport(t)
	for range 5 {
		r, err := c.Get(url + "/p")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil || len(b) != 1024 || r.Header.Get("X-Path") != "/p" {
			t.Fatalf("%d bytes, %v, %v", len(b), r.Header, err)
		}
	}
	waitFor(t, "all streams to end", func() bool { return up.ended() == 5 })
}

func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	end := time.Now().Add(wait)
	for !f() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
		runtime.Gosched()
	}
}

func TestEcho(t *testing.T) {
	t.Parallel()
	url, _ := chain(t, echo)
	c := transport(t)
	for _, size := range []int{0, 1, 16384, 16385, 100_000, 3 << 20} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rand.Uint32())
		}
		r, err := c.Post(url, "x/y", bytes.NewReader(body))
		if err != nil {
			t.Fatal(size, err)
		}
		b, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil || !bytes.Equal(b, body) {
			t.Fatalf("%d bytes came as %d: %v", size, len(b), err)
		}
		if got, want := r.Trailer.Get("X-Sum"), fmt.Sprintf("%x", sha256.Sum256(body)); got != want {
			t.Errorf("%d bytes: trailer %q, want %q", size, got, want)
		}
	}
}

// lazy reads at random, and stops for good at random.
type lazy struct {
	r    io.Reader
	left int
	stop int
	ctx  context.Context
}

func (l *lazy) Read(p []byte) (int, error) {
	if l.stop > 0 && l.left < l.stop {
		<-l.ctx.Done()
		return 0, l.ctx.Err()
	}
	if rand.IntN(8) == 0 {
		for range rand.IntN(50) {
			runtime.Gosched()
		}
	}
	n, err := l.r.Read(p[:min(len(p), 1+rand.IntN(20000))])
	l.left -= n
	return n, err
}

// TestSlowAndStopped lets streams of all sorts share both connections: slow and stopped readers and
// writers on both sides. Those that are not stopped end, with every byte and their trailers.
func TestSlowAndStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	url, up := chain(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Stop") == "server" {
			_ = http.NewResponseController(w).Flush()
			select { // reads nothing
			case <-ctx.Done():
			case <-r.Context().Done():
			}
			return
		}
		r.Body = io.NopCloser(&lazy{r: r.Body, ctx: ctx})
		echo(w, r)
	})
	c := transport(t)
	var wg, stuck sync.WaitGroup
	for i := range 40 {
		size := rand.IntN(400_000)
		stop := ""
		g := &wg
		switch i % 10 {
		case 3:
			stop, g, size = "server", &stuck, 2<<20
		case 7:
			stop, g, size = "client", &stuck, 2<<20
		}
		g.Go(func() {
			body := bytes.Repeat([]byte{byte(i)}, size)
			q, _ := http.NewRequestWithContext(ctx, http.MethodPost, url, &lazy{r: bytes.NewReader(body), ctx: ctx})
			q.Header.Set("X-Stop", stop)
			r, err := c.Do(q)
			if err != nil {
				if stop == "" {
					t.Error(err)
				}
				return
			}
			defer r.Body.Close()
			if stop != "" {
				<-ctx.Done()
				return
			}
			b, err := io.ReadAll(&lazy{r: r.Body, ctx: ctx})
			if err != nil || !bytes.Equal(b, body) {
				t.Errorf("%d bytes came as %d: %v", size, len(b), err)
			}
			if r.Trailer.Get("X-Sum") == "" {
				t.Error("no trailers")
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Error("deadlock")
	}
	cancel()
	stuck.Wait()
	<-done
	waitFor(t, "all streams to end", func() bool { return up.ended() == 40 })
	check(t, &up.conn)
}

// check compares what a connection without streams counts with nothing.
func check(t testing.TB, c *conn) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) != 0 || len(c.ready) != 0 || c.queued != 0 {
		t.Errorf("%d streams, %d ready, %d bytes queued", len(c.streams), len(c.ready), c.queued)
	}
	if c.recvWin+c.owed != int64(c.opt.ConnectionWindow) {
		t.Errorf("connection window: %d + %d owed, want %d", c.recvWin, c.owed, c.opt.ConnectionWindow)
	}
	if n := c.opt.Stats.PendingSendBytes.Value(); n != 0 {
		t.Errorf("%d bytes pending", n)
	}
	if n := c.opt.Stats.StreamsActive.Value(); n != 0 {
		t.Errorf("%d streams active", n)
	}
}
