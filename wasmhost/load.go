package wasmhost

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"sidecar/internal/task"
	"sidecar/wasmhost/code"
	"sidecar/wasmhost/code/cache"
	"sidecar/wasmhost/code/fetch"
	"sidecar/wasmhost/internal/engine"
)

// moduleEntry is compiled code that plugins share. ready is closed when module or err is set.
type moduleEntry struct {
	digest [sha256.Size]byte
	ready  chan struct{}
	module *engine.Module
	err    error

	// Guarded by Host.mu.
	refs   int
	cancel context.CancelFunc
}

// openSources makes what code comes from.
func (h *Host) openSources() {
	o := &h.opts
	if o.CacheDir != "" {
		dir, err := cache.Open(o.CacheDir, o.CacheBytes, "wasmtime-"+engine.Version)
		if err != nil {
			o.Log.Warn("wasm: nothing is kept in the cache", "error", err)
		}
		h.cache = dir
	}
	h.client = fetch.New(fetch.Options{MaxBytes: maxCodeBytes, InsecureHosts: o.InsecureHosts})
	h.sources = code.New(code.Options{
		Log: o.Log, Scope: o.Stats.Scope("wasm"), Dir: h.cache, Client: h.client,
		Cluster: h.fetchOverCluster, MaxBytes: maxCodeBytes,
	})
}

func (h *Host) closeSources() {
	h.client.Close()
	if h.cache != nil {
		_ = h.cache.Close()
	}
}

// FetchError is a plugin's code that could not be got: unlike a plugin that doesn't start, it may be
// there another time.
type FetchError struct{ Err error }

func (e *FetchError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *FetchError) Unwrap() error { return e.Err }

// atHand tells whether a plugin can be started without asking anybody for its code.
func (h *Host) atHand(c *Config) bool {
	if c.remote == nil {
		return true
	}
	if _, ok := h.sources.Known(c.remote); ok {
		return true
	}
	g, ok := c.remote.Digest()
	return ok && h.compiled(g)
}

// compiled tells whether code of that digest needn't be had, as it has been compiled.
func (h *Host) compiled(g cache.Digest) bool {
	h.mu.Lock()
	e := h.modules[g]
	h.mu.Unlock()
	if e != nil {
		return true
	}
	if h.cache == nil {
		return false
	}
	f, ok := h.cache.Compiled(g)
	if ok {
		_ = f.Close()
	}
	return ok
}

// module finds or makes a plugin's compiled code; whoever asks for code that is being compiled waits.
// The caller releases it by its digest. fresh doesn't ask what could not be fetched a moment ago.
func (h *Host) module(ctx context.Context, c *Config, fresh bool) (*moduleEntry, error) {
	digest, bytes := c.digest, c.code.get()
	if c.remote != nil {
		g, ok := c.remote.Digest()
		if !ok || c.Isolated || !h.compiled(g) {
			got, err := h.sources.Get(ctx, c.remote, fresh)
			if err != nil {
				return nil, &FetchError{err}
			}
			g, bytes = got.Digest, got.Bytes
		}
		digest = g
	}
	if c.Isolated { // Other code, compiled and kept under a digest of its own.
		digest = sha256.Sum256(append([]byte("isolated"), digest[:]...))
	}
	e := h.join(digest, c.Isolated, bytes) //nolint:contextcheck // it goes on for others who wait
	select {
	case <-e.ready:
	case <-ctx.Done():
		h.release(digest)
		return nil, ctx.Err()
	}
	if e.err != nil {
		h.release(digest)
		return nil, e.err
	}
	return e, nil
}

// join takes part in a module, which it begins to load if nobody has.
func (h *Host) join(digest cache.Digest, isolated bool, bytes []byte) *moduleEntry {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.modules[digest]
	if e == nil {
		ctx, cancel := context.WithCancel(h.ctx)
		e = &moduleEntry{digest: digest, ready: make(chan struct{}), cancel: cancel}
		h.modules[digest] = e
		e.refs++ // The loader's own: a module isn't freed while it is made.
		h.done.Add(1)
		task.Go("wasm load", func() { h.loaded(e, func() (*engine.Module, error) { return h.load(ctx, digest, isolated, bytes) }) },
			func(p *task.Panic) { h.loaded(e, func() (*engine.Module, error) { return nil, p }) })
	}
	e.refs++
	return e
}

func (h *Host) loaded(e *moduleEntry, load func() (*engine.Module, error)) {
	e.module, e.err = load()
	close(e.ready)
	h.release(e.digest)
	h.done.Done()
}

func (h *Host) release(digest cache.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.modules[digest]
	e.refs--
	switch {
	case e.refs > 1:
		return
	case e.refs == 1:
		select {
		case <-e.ready:
		default:
			e.cancel() // Only the loader is left.
		}
		return
	}
	e.cancel()
	delete(h.modules, digest)
	if e.module != nil {
		e.module.Close()
	}
}

var errCodeGone = errors.New("its code was let go, and its compiled code isn't in the cache any more")

// load maps compiled code from the cache, else it compiles.
func (h *Host) load(ctx context.Context, digest cache.Digest, isolated bool, bytes []byte) (*engine.Module, error) {
	if h.cache != nil {
		if f, ok := h.cache.Compiled(digest); ok {
			m, err := h.mapped(f)
			_ = f.Close()
			if err == nil {
				return m, nil
			}
			h.opts.Log.Info("wasm: compiled code in the cache is of no use", "error", err)
			h.cache.DropCompiled(digest)
		}
		if bytes == nil && !isolated {
			bytes, _ = h.cache.Module(digest)
		}
	}
	if bytes == nil {
		return nil, errCodeGone
	}
	if isolated {
		var err error
		if bytes, err = engine.Instrument(bytes); err != nil {
			return nil, err
		}
	}
	return h.compile(ctx, digest, bytes)
}

// mapped loads from the very file that was looked at, whatever its name leads to by now.
func (h *Host) mapped(f *os.File) (*engine.Module, error) {
	return h.engine.LoadFile("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

// heldCode is a module's bytes, as long as they may be needed.
type heldCode struct{ b atomic.Pointer[[]byte] }

func holdCode(b []byte) *heldCode {
	c := new(heldCode)
	c.b.Store(&b)
	return c
}

func (c *heldCode) get() []byte {
	if c == nil {
		return nil
	}
	if p := c.b.Load(); p != nil {
		return *p
	}
	return nil
}

// drop lets go of the bytes.
func (c *heldCode) drop() {
	if c != nil {
		c.b.Store(nil)
	}
}

// source says where the code comes from.
func (c *Config) source() string {
	if c.remote != nil {
		return c.remote.String()
	}
	return fmt.Sprintf("local, %d bytes", c.codeBytes)
}
