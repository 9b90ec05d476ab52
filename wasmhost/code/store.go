package code

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"sidecar/api/stats"
	"sidecar/internal/task"
	"sidecar/wasmhost/code/cache"
	"sidecar/wasmhost/code/fetch"
)

// Options of a Store.
type Options struct {
	Log *slog.Logger
	// Scope of the stats, "wasm".
	Scope *stats.Scope
	// Dir is the cache; nil is none.
	Dir *cache.Dir
	// Client fetches what no cluster leads to.
	Client *fetch.Client
	// Cluster fetches over a cluster. It blocks.
	Cluster func(ctx context.Context, r *Remote, limit int64) (status int, body []byte, err error)
	// MaxBytes bounds a module.
	MaxBytes int64
}

// Store gets code. Safe for concurrent use.
type Store struct {
	// Set by New, never changed.
	o     Options
	stats *storeStats

	mu      sync.Mutex // guards below
	fetches map[string]*inFlight
	failed  map[string]failure
}

// storeStats are Envoy's, by name and meaning.
type storeStats struct {
	Hits         stats.Counter `stat:"remote_load_cache_hits"`
	NegativeHits stats.Counter `stat:"remote_load_cache_negative_hits"`
	Misses       stats.Counter `stat:"remote_load_cache_misses"`
	Successes    stats.Counter `stat:"remote_load_fetch_successes"`
	Failures     stats.Counter `stat:"remote_load_fetch_failures"`
	Entries      stats.Gauge   `stat:"remote_load_cache_entries"`
}

// failure is a fetch that failed not long ago.
type failure struct {
	err error
	at  time.Time
}

// negativeTTL is how long a failure is remembered: plugins that are loaded meanwhile don't ask again.
const negativeTTL = 10 * time.Second

// maxFailures bounds what is remembered.
const maxFailures = 1024

// inFlight is one fetch, and who waits for it.
type inFlight struct {
	done   chan struct{} // closed when code and err are set
	code   Code
	err    error
	refs   int
	cancel context.CancelFunc
}

// Code is verified code.
type Code struct {
	Bytes  []byte
	Digest cache.Digest
}

// New makes a store.
func New(o Options) *Store {
	return &Store{
		o: o, stats: stats.Bind[storeStats](o.Scope), fetches: map[string]*inFlight{}, failed: map[string]failure{},
	}
}

// Known tells the digest of code that needn't be fetched, as far as can be said without the network.
func (s *Store) Known(r *Remote) (cache.Digest, bool) {
	if r.Cluster != "" {
		g, ok := parseDigest(r.SHA256) // What it must be is what it is.
		return g, ok && s.o.Dir != nil && s.o.Dir.HasModule(g)
	}
	if s.o.Dir == nil {
		return cache.Digest{}, false
	}
	ref, ok := s.o.Dir.Reference(r.key())
	if !ok || (r.SHA256 != "" && !matches(ref, r.SHA256)) {
		return cache.Digest{}, false
	}
	g, ok := parseDigest(ref.Code)
	return g, ok && s.o.Dir.HasModule(g)
}

func parseDigest(text string) (g cache.Digest, ok bool) {
	b, err := hex.DecodeString(text)
	return g, err == nil && copy(g[:], b) == len(g) && len(b) == len(g)
}

// Get returns the code: from the cache, else it fetches it, as often as the source says. It blocks until
// then or until ctx ends; a fetch goes on as long as anybody waits for it. fresh doesn't ask what failed
// a moment ago.
func (s *Store) Get(ctx context.Context, r *Remote, fresh bool) (Code, error) {
	if g, ok := s.Known(r); ok {
		if b, ok := s.o.Dir.Module(g); ok {
			s.stats.Hits.Inc()
			return Code{b, g}, nil
		}
	}
	f, err := s.join(ctx, r, fresh)
	if err != nil {
		return Code{}, err
	}
	defer s.leave(r, f)
	select {
	case <-f.done:
		return f.code, f.err
	case <-ctx.Done():
		return Code{}, ctx.Err()
	}
}

// join takes part in a fetch, which it starts if nobody has.
func (s *Store) join(ctx context.Context, r *Remote, fresh bool) (*inFlight, error) {
	key := r.key()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fetches[key]
	if f == nil {
		if old, ok := s.failed[key]; ok && !fresh && time.Since(old.at) < negativeTTL {
			s.stats.NegativeHits.Inc()
			return nil, old.err
		}
		s.stats.Misses.Inc()
		run, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &inFlight{done: make(chan struct{}), cancel: cancel}
		s.fetches[key] = f
		task.Go("wasm fetch", func() {
			code, err := s.fetch(run, r)
			s.ended(r, f, code, err)
		}, func(p *task.Panic) { s.ended(r, f, Code{}, p) })
	}
	f.refs++
	return f, nil
}

func (s *Store) leave(r *Remote, f *inFlight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.refs--; f.refs == 0 {
		f.cancel()
		if s.fetches[r.key()] == f {
			delete(s.fetches, r.key())
		}
	}
}

// ended notes the outcome of a fetch.
func (s *Store) ended(r *Remote, f *inFlight, code Code, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := r.key()
	f.code, f.err = code, err
	if s.fetches[key] == f {
		delete(s.fetches, key)
	}
	if delete(s.failed, key); err != nil && !errors.Is(err, context.Canceled) && len(s.failed) < maxFailures {
		s.failed[key] = failure{err, time.Now()}
	}
	close(f.done)
}

// fetch tries as often as the source says, with growing pauses.
func (s *Store) fetch(ctx context.Context, r *Remote) (Code, error) {
	delay := r.BaseDelay
	for try := 0; ; try++ {
		code, ref, err := s.once(ctx, r)
		if err == nil {
			s.stats.Successes.Inc()
			s.keep(r, code, ref)
			return code, nil
		}
		s.stats.Failures.Inc()
		if ctx.Err() != nil {
			return Code{}, ctx.Err()
		}
		s.o.Log.Warn("wasm: code could not be fetched", "source", r.String(), "try", try+1, "error", err)
		if try >= r.Retries || (r.Cluster == "" && !fetch.Temporary(err)) {
			return Code{}, fmt.Errorf("code from %s: %w", r, err)
		}
		if err := task.Sleep(ctx, delay/2+rand.N(delay/2+1)); err != nil {
			return Code{}, err
		}
		delay = min(2*delay, r.MaxDelay)
	}
}

// once is one try.
func (s *Store) once(ctx context.Context, r *Remote) (Code, cache.Reference, error) {
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Timeout)
		defer cancel()
	}
	b, manifest, err := s.bytes(ctx, r)
	if err != nil {
		return Code{}, cache.Reference{}, err
	}
	code := Code{b, sha256.Sum256(b)}
	ref := cache.Reference{Code: hex.EncodeToString(code.Digest[:]), Manifest: manifest}
	if r.SHA256 != "" && !matches(ref, r.SHA256) {
		return Code{}, ref, fmt.Errorf("its SHA-256 is %s, and the configuration says %s", cmp.Or(manifest, ref.Code), r.SHA256)
	}
	if !fetch.IsModule(b) {
		return Code{}, ref, errors.New("it is no Wasm module")
	}
	return code, ref, nil
}

// matches tells whether code is what a configuration says. That of an image may be its manifest's
// digest, as in Istio: the manifest has the digests of the layers.
func matches(ref cache.Reference, want string) bool {
	return ref.Code == want || ref.Manifest == "sha256:"+want
}

func (s *Store) bytes(ctx context.Context, r *Remote) (b []byte, manifest string, err error) {
	switch {
	case r.isImage:
		image, err := s.o.Client.Image(ctx, r.image, r.secret)
		if err != nil {
			return nil, "", err
		}
		return image.Code, image.Manifest, nil
	case r.Cluster == "":
		b, err = s.o.Client.HTTP(ctx, r.URI)
		return b, "", err
	}
	status, b, err := s.o.Cluster(ctx, r, s.o.MaxBytes)
	switch {
	case err != nil:
		return nil, "", err
	case status != 200:
		return nil, "", fmt.Errorf("cluster %q answered with status %d", r.Cluster, status)
	}
	return b, "", nil
}

// keep puts code into the cache. A full disk is no reason to do without the plugin.
func (s *Store) keep(r *Remote, code Code, ref cache.Reference) {
	if s.o.Dir == nil {
		return
	}
	err := s.o.Dir.PutModule(code.Digest, code.Bytes)
	if err == nil && r.Cluster == "" {
		err = s.o.Dir.PutReference(r.key(), ref)
	}
	if err != nil {
		s.o.Log.Warn("wasm: code could not be put into the cache", "error", err)
		return
	}
	s.stats.Entries.SetUint(uint64(s.o.Dir.Modules()))
}
