package code

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/stats"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
	"sidecar/wasmhost/code/cache"
	"sidecar/wasmhost/code/fetch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFieldTables(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, FieldTables()...)
}

var module = []byte("\x00asm\x01\x00\x00\x00")

func digest() string {
	g := sha256.Sum256(module)
	return hex.EncodeToString(g[:])
}

func source(uri, clusterName, sha string) *corev3.RemoteDataSource {
	return &corev3.RemoteDataSource{
		HttpUri: &corev3.HttpUri{
			Uri: uri, Timeout: durationpb.New(time.Second),
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: clusterName},
		},
		Sha256: sha,
	}
}

func compile(t *testing.T, s *corev3.RemoteDataSource, env map[string]string) *Remote {
	t.Helper()
	var errs config.Errors
	r := Compile(config.Field("remote"), s, env, &errs)
	if err := errs.Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		s    *corev3.RemoteDataSource
		env  map[string]string
		want string
	}{
		{"nothing", &corev3.RemoteDataSource{}, nil, "remote.http_uri: is required"},
		{"no digest over a cluster", source("http://a/b", "c", ""), nil, "remote.sha256: must be the SHA-256"},
		{"Istio's none over a cluster", source("http://a/b", "c", "nil"), nil, "remote.sha256"},
		{"short digest", source("oci://a/b", "_", "abcd"), nil, "64 hex digits"},
		{"address", source("ftp://a/b", "c", digest()), nil, "remote.http_uri.uri"},
		{"image", source("oci://A B", "_", digest()), nil, "is no address of an image"},
		{"secret", source("oci://h.test/b", "_", digest()), map[string]string{secretVariable: ""}, "image pull secret"},
		{"policy", source("oci://h.test/b", "_", digest()), map[string]string{policyVariable: "Never"}, "neither IfNotPresent nor Always"},
	} {
		var errs config.Errors
		Compile(config.Field("remote"), tc.s, tc.env, &errs)
		if err := errs.Err(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q in it", tc.name, err, tc.want)
		}
	}
}

func TestCompile(t *testing.T) {
	t.Parallel()
	env := map[string]string{versionVariable: "7", policyVariable: "Always", "ISTIO_META_X": "", "KEPT": "1"}
	r := compile(t, source("oci://h.test/b:v", "_", "nil"), env)
	if len(env) != 1 || r.version != "7" || !r.always || !r.isImage || r.SHA256 != "" || r.Retries != 4 {
		t.Errorf("%+v, environment %v", r, env)
	}
	if r := compile(t, source("oci://h.test/b", "_", "nil"), nil); !r.always {
		t.Error("latest is not always pulled")
	}
	s := source("https://a/b", "c", strings.ToUpper(digest()))
	s.RetryPolicy = &corev3.RetryPolicy{
		NumRetries:   wrapperspb.UInt32(5),
		RetryBackOff: &corev3.BackoffStrategy{BaseInterval: durationpb.New(2 * time.Second)},
	}
	r = compile(t, s, nil)
	if r.Cluster != "c" || r.SHA256 != digest() || r.Retries != 5 || r.BaseDelay != 2*time.Second || r.MaxDelay != 20*time.Second {
		t.Errorf("%+v", r)
	}
}

// rig is a store with a made-up cluster.
type rig struct {
	*Store
	stats  *stats.Store
	asked  atomic.Int32
	answer func(ctx context.Context, n int32) (int, []byte, error)
}

func newRig(t *testing.T, dir string, answer func(ctx context.Context, n int32) (int, []byte, error)) *rig {
	t.Helper()
	r := &rig{stats: stats.New(), answer: answer}
	o := Options{
		Log: slog.New(slog.DiscardHandler), Scope: r.stats.Scope("wasm"), MaxBytes: 1 << 20,
		Cluster: func(ctx context.Context, _ *Remote, _ int64) (int, []byte, error) {
			return r.answer(ctx, r.asked.Add(1))
		},
		Client: fetch.New(fetch.Options{}),
	}
	t.Cleanup(o.Client.Close)
	if dir != "" {
		d, err := cache.Open(dir, 1<<20, "t")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		o.Dir = d
	}
	r.Store = New(o)
	return r
}

func TestCluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/c"
	r := newRig(t, dir, func(context.Context, int32) (int, []byte, error) { return 200, module, nil })
	remote := compile(t, source("http://a/b", "c", digest()), nil)
	if _, ok := r.Known(remote); ok {
		t.Error("known before it was fetched")
	}
	for range 2 {
		c, err := r.Get(t.Context(), remote, false)
		if err != nil || string(c.Bytes) != string(module) {
			t.Fatalf("%v, %v", c, err)
		}
	}
	if r.asked.Load() != 1 || r.Store.stats.Hits.Value() != 1 || r.Store.stats.Misses.Value() != 1 || r.Store.stats.Entries.Value() != 1 {
		t.Errorf("asked %d times", r.asked.Load())
	}
	// Another process finds it, under another address too: the digest says what it is.
	other := newRig(t, dir, func(context.Context, int32) (int, []byte, error) { return 500, nil, nil })
	if _, ok := other.Known(compile(t, source("http://other/b", "d", digest()), nil)); !ok {
		t.Error("not known to another process")
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	other := append([]byte(nil), module...)
	other[7] = 1
	for _, tc := range []struct {
		name   string
		answer func(n int32) (int, []byte, error)
		asked  int32
		want   string
	}{
		{"third time lucky", func(n int32) (int, []byte, error) {
			if n < 3 {
				return 503, nil, nil
			}
			return 200, module, nil
		}, 3, ""},
		{"status", func(int32) (int, []byte, error) { return 404, nil, nil }, 4, "status 404"},
		{"broken", func(int32) (int, []byte, error) { return 0, nil, errors.New("no way") }, 4, "no way"},
		{"changed", func(int32) (int, []byte, error) { return 200, other, nil }, 4, "the configuration says"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, "", func(_ context.Context, n int32) (int, []byte, error) { return tc.answer(n) })
				s := source("http://a/b", "c", digest())
				s.RetryPolicy = &corev3.RetryPolicy{NumRetries: wrapperspb.UInt32(3)}
				remote := compile(t, s, nil)
				start := time.Now()
				_, err := r.Get(t.Context(), remote, false)
				if (tc.want == "" && err != nil) || (tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want))) {
					t.Errorf("error %v, want %q in it", err, tc.want)
				}
				if r.asked.Load() != tc.asked {
					t.Errorf("asked %d times, want %d", r.asked.Load(), tc.asked)
				}
				if d := time.Since(start); d < time.Second || d > 7*time.Second {
					t.Errorf("took %s", d)
				}
				if tc.want == "" {
					return
				}
				// For a while the failure is remembered.
				if _, err := r.Get(t.Context(), remote, false); err == nil || r.asked.Load() != tc.asked {
					t.Errorf("asked again: %v", err)
				}
				time.Sleep(negativeTTL)
				if _, err := r.Get(t.Context(), remote, false); err == nil || r.asked.Load() == tc.asked {
					t.Errorf("not asked again: %v", err)
				}
			})
		})
	}
}

// TestOneFetch holds that many who want the same ask once, and that it goes on for those who stay.
func TestOneFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRig(t, "", func(ctx context.Context, _ int32) (int, []byte, error) {
			select {
			case <-release:
				return 200, module, nil
			case <-ctx.Done():
				return 0, nil, ctx.Err()
			}
		})
		s := source("http://a/b", "c", digest())
		s.HttpUri.Timeout = nil
		remote := compile(t, s, nil)
		leaving, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.Get(leaving, remote, false); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				if _, err := r.Get(t.Context(), remote, false); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(release)
		wg.Wait()
		if r.asked.Load() != 1 {
			t.Errorf("asked %d times", r.asked.Load())
		}
	})
}

// TestNobodyWaits holds that a fetch ends when all who wanted it have gone.
func TestNobodyWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		r := newRig(t, "", func(ctx context.Context, _ int32) (int, []byte, error) {
			<-ctx.Done()
			close(ended)
			return 0, nil, ctx.Err()
		})
		s := source("http://a/b", "c", digest())
		s.HttpUri.Timeout = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := r.Get(ctx, compile(t, s, nil), false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		<-ended
		synctest.Wait()
	})
}

// TestPullPolicy holds when an address that may mean something new is asked again.
func TestPullPolicy(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(module)
	}))
	defer srv.Close()
	r := newRig(t, t.TempDir()+"/c", nil)
	get := func(policy, version, sha string) int32 {
		t.Helper()
		remote := compile(t, source(srv.URL+"/x", "_", sha), map[string]string{policyVariable: policy, versionVariable: version})
		if _, err := r.Get(t.Context(), remote, false); err != nil {
			t.Error(err)
		}
		return asked.Load()
	}
	for _, tc := range []struct {
		policy, version, sha string
		want                 int32
	}{
		{"", "1", "nil", 1},
		{"IfNotPresent", "2", "nil", 1},
		{"Always", "2", "nil", 2},
		{"Always", "2", "nil", 2},
		{"Always", "3", "nil", 3},
		{"", "1", digest(), 4}, // Another key: what is pinned isn't what isn't.
		{"", "1", digest(), 4},
	} {
		if got := get(tc.policy, tc.version, tc.sha); got != tc.want {
			t.Errorf("policy %q, version %s: asked %d times, want %d", tc.policy, tc.version, got, tc.want)
		}
	}
}
