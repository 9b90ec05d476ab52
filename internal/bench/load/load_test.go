package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sidecar/internal/bench/upstream"
)

func TestMain(m *testing.M) {
	// The servers of the tests end with the process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("sidecar/internal/bench/upstream.serve"),
		goleak.IgnoreAnyFunction("sidecar/internal/bench/upstream.serve.func1"))
}

func server(t *testing.T, serve func(net.Listener) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { _ = serve(l) }()
	return l.Addr().String()
}

func TestClosed(t *testing.T) {
	t.Parallel()
	address := server(t, upstream.ServeHTTP)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// The first answer ends the load: each connection has then sent one request or two.
	n, errs := Closed(ctx, address, 3, Request(upstream.PathEcho, upstream.SeenHeader+": v"),
		func(r Response) error {
			cancel()
			if r.Status != 200 || r.Body != 1024 || strings.Join(r.Header["x-seen"], "") != "v" {
				return errors.New("wrong answer")
			}
			return nil
		})
	if len(errs) > 0 || n < 1 {
		t.Errorf("%d answers, errors %v", n, errs)
	}
}

func TestClosedReportsBadAnswers(t *testing.T) {
	t.Parallel()
	address := server(t, upstream.ServeHTTP)
	n, errs := Closed(context.Background(), address, 2, Request("/"),
		func(Response) error { return errors.New("no") })
	if n != 2 || len(errs) != 2 {
		t.Errorf("%d answers, errors %v", n, errs)
	}
}

func TestOpenCountsFromWhenDue(t *testing.T) {
	t.Parallel()
	o := Open{
		Address:  server(t, upstream.ServeHTTP),
		Requests: []string{Request("/"), Request(upstream.PathDelay + "100")},
		Pick:     func(i int) int { return i % 10 / 9 },
		Rate:     200, For: 200 * time.Millisecond, Within: 5 * time.Second, MaxConns: 100,
	}
	samples := o.Run(context.Background())
	if len(samples) != 40 {
		t.Fatalf("%d samples", len(samples))
	}
	for i, s := range samples {
		if s.Err != nil || s.Status != 200 {
			t.Errorf("sample %d: %+v", i, s)
		}
		if s.Kind == 1 && s.Took < 100*time.Millisecond {
			t.Errorf("sample %d took %v, the server waits 100 ms", i, s.Took)
		}
	}
}

func TestPingPongAndBulk(t *testing.T) {
	t.Parallel()
	address := server(t, upstream.ServeEcho)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	n, err := PingPong(ctx, address, 2, 64)
	if err != nil || n < 2 {
		t.Errorf("%d round trips, %v", n, err)
	}
	if err := Bulk(address, 2, 3<<20); err != nil {
		t.Error(err)
	}
	conns, err := Hold(address, 5, "x", 1)
	defer CloseAll(conns)
	if err != nil || len(conns) != 5 {
		t.Errorf("%d connections, %v", len(conns), err)
	}
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	fixed := server(t, upstream.ServeHTTP2)
	conns, err := HoldHTTP2(fixed, 3, nil, "/")
	CloseAll(conns)
	if err != nil || len(conns) != 3 {
		t.Errorf("%d connections, %v", len(conns), err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	took, err := Paced(ctx, fixed, "/", 4, 5*time.Millisecond)
	if err != nil || len(took) == 0 {
		t.Errorf("%d answers, %v", len(took), err)
	}
}

func TestBulkGRPC(t *testing.T) {
	t.Parallel()
	if err := BulkGRPC(context.Background(), server(t, upstream.ServeGRPC), 3, 1<<20); err != nil {
		t.Error(err)
	}
}

func TestHandshakes(t *testing.T) {
	t.Parallel()
	plain := httptest.NewUnstartedServer(http.NotFoundHandler())
	plain.StartTLS()
	defer plain.Close()
	roots := x509.NewCertPool()
	roots.AddCert(plain.Certificate())
	c := &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13}
	for _, resume := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		n, err := Handshakes(ctx, plain.Listener.Addr().String(), 2, c, resume)
		cancel()
		if err != nil || n == 0 {
			t.Errorf("resume %t: %d handshakes, %v", resume, n, err)
		}
	}
}
