package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"sidecar/internal/config/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBackOff(t *testing.T) {
	t.Parallel()
	b := newBackOff(0, 0)
	limit := DefaultBackOffBase
	for i := range 12 {
		if d := b.wait(); d < 0 || d >= limit {
			t.Fatalf("wait %d is %s, want below %s", i, d, limit)
		}
		limit = min(2*limit, DefaultBackOffMax)
	}
	if b.next != DefaultBackOffMax {
		t.Fatalf("grew to %s, want %s", b.next, DefaultBackOffMax)
	}
	b.reset()
	if d := b.wait(); d >= DefaultBackOffBase {
		t.Fatalf("%s after a reset", d)
	}
	if b := newBackOff(time.Minute, time.Second); b.max != time.Minute {
		t.Fatalf("max %s below base", b.max)
	}
}

func TestBucket(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := newBucket(&source.RateLimit{MaxTokens: 1, FillRate: 2})
	for i, want := range []time.Duration{0, time.Second / 2, time.Second} {
		if got := b.take(now); got != want {
			t.Fatalf("take %d: %s, want %s", i, got, want)
		}
	}
	if got := b.take(now.Add(time.Hour)); got != 0 {
		t.Fatalf("%s after an hour", got)
	}
	if got := b.take(now.Add(time.Hour)); got != time.Second/2 {
		t.Fatalf("%s: the bucket overflowed", got)
	}
	if newBucket(nil).take(now) != 0 {
		t.Fatal("no limit, but a wait")
	}
}

type closeLog struct {
	errs chan error
}

func (closeLog) Opened(uint64)                  {}
func (closeLog) Received(uint64, proto.Message) {}
func (c closeLog) Closed(_ uint64, err error)   { c.errs <- err }

type failingDialer struct{}

func (failingDialer) DialCluster(context.Context, string) (net.Conn, error) {
	return nil, errors.New("no healthy upstream")
}

// TestStreamRetries: a server that can't be reached is tried again at growing distances, and the
// reason is told.
func TestStreamRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := closeLog{make(chan error, 100)}
		start := time.Now()
		s := Start(t.Context(), Options{
			Method: "/a.B/C", GRPC: &source.GRPC{Cluster: "x", Authority: "x"},
			Dialer: failingDialer{}, Handler: c, Stats: &source.ControlPlaneStats{},
			NewResponse: func() proto.Message { return &discoveryv3.DiscoveryResponse{} },
			Log:         slog.New(slog.DiscardHandler),
		})
		for range 12 {
			if err := <-c.errs; !strings.Contains(err.Error(), "no healthy upstream") {
				t.Fatalf("got %v", err)
			}
		}
		// Twelve attempts are eleven waits, of which the last five are below 30 s each.
		if d := time.Since(start); d > 4*time.Minute || d == 0 {
			t.Fatalf("twelve attempts in %s", d)
		}
		s.Close()
		s.Wait()
		if !s.Ended() {
			t.Fatal("not ended")
		}
	})
}
