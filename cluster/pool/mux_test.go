package pool_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/load"
	"sidecar/cluster/pool"
	"sidecar/internal/wire"
)

// muxCodec carries streams that end when the test says so.
type muxCodec struct {
	lineCodec
	limit uint32

	count atomic.Int32
	away  atomic.Bool
}

// muxStream is one of its streams; it is the Encoder, too.
type muxStream struct {
	*muxCodec
	end sync.Once
}

func (c *muxCodec) NewStream(_ *stream.Turn, _ stream.Target) stream.Encoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.away.Load() {
		return nil
	}
	if c.limit > 0 && c.count.Load() >= int32(c.limit) {
		return nil
	}
	c.count.Add(1)
	return &muxStream{muxCodec: c}
}

// Reset ends the stream.
func (s *muxStream) Reset(t *stream.Turn, _ *stream.Fault) {
	s.end.Do(func() {
		s.count.Add(-1)
		s.h.OnStreamEnd(t)
	})
}

// goAway has the connection take no more streams.
func (c *muxCodec) goAway(t *stream.Turn) {
	c.away.Store(true)
	c.h.OnGoAway(t)
}

type muxRig struct {
	*rig
	mu     sync.Mutex
	codecs []*muxCodec
}

func newMuxRig(t *testing.T, limit uint32, change func(c *pool.Config)) *muxRig {
	t.Helper()
	m := &muxRig{}
	srv := newServer(t, bang)
	m.rig = newRig(t, srv.ln.Addr(), load.DefaultLimits(), func(c *pool.Config) {
		c.NewHTTP2 = func(conn *wire.Conn, h pool.Handler) pool.Codec {
			x := &muxCodec{lineCodec: lineCodec{conn: conn, h: h}, limit: limit}
			m.mu.Lock()
			m.codecs = append(m.codecs, x)
			m.mu.Unlock()
			return x
		}
		if change != nil {
			change(c)
		}
	})
	m.pool = pool.NewMux(m.conf, m.host, load.Default)
	return m
}

// open takes a stream, or the fault; neither is no answer in time.
func (m *muxRig) open() (stream.Encoder, *stream.Fault) {
	u := m.user()
	u.auto = false
	ready, f := u.start()
	if ready || f != nil {
		return u.enc, f
	}
	select {
	case <-u.events:
		return u.enc, u.fault
	case <-time.After(10 * time.Second):
		return nil, nil
	}
}

func (m *muxRig) must() stream.Encoder {
	m.t.Helper()
	enc, f := m.open()
	if enc == nil {
		m.t.Fatalf("no stream: %v", f)
	}
	return enc
}

func reset(enc stream.Encoder) { stream.Do(func(t *stream.Turn) { enc.Reset(t, nil) }) }

// TestMux_Shares: streams share a connection up to the limit, and the next one has another.
func TestMux_Shares(t *testing.T) {
	t.Parallel()
	m := newMuxRig(t, 0, func(c *pool.Config) { c.MaxStreams = 3 })
	var encs []stream.Encoder
	for i := range 4 {
		encs = append(encs, m.must())
		if got, want := m.pool.Size(), 1+i/3; got != want {
			t.Errorf("%d connections for %d streams, want %d", got, i+1, want)
		}
	}
	if got := m.traffic.RqActive.Value(); got != 4 {
		t.Errorf("%d active", got)
	}
	for _, e := range encs {
		reset(e)
	}
	if got := m.traffic.RqActive.Value(); got != 0 {
		t.Errorf("%d active after the end", got)
	}
	if got := m.traffic.CxHTTP2Total.Value(); got != 2 {
		t.Errorf("%d connections of HTTP/2 counted", got)
	}
}

// TestMux_GoAway: a connection that goes away ends with its last stream, and others take its place.
func TestMux_GoAway(t *testing.T) {
	t.Parallel()
	m := newMuxRig(t, 0, nil)
	one := m.must()
	stream.Do(m.codecs[0].goAway)
	two := m.must()
	if m.pool.Size() != 2 {
		t.Fatalf("%d connections", m.pool.Size())
	}
	reset(one)
	m.wait("end of the first", func() bool { return m.pool.Size() == 1 })
	reset(two)
}

// TestMux_MaxRequests: a connection serves as many as it may, then it ends.
func TestMux_MaxRequests(t *testing.T) {
	t.Parallel()
	m := newMuxRig(t, 0, func(c *pool.Config) { c.MaxRequests = 2 })
	for range 4 {
		reset(m.must())
	}
	m.wait("end of both", func() bool { return m.pool.Size() == 0 })
	if got := m.traffic.CxMaxRequests.Value(); got != 2 {
		t.Errorf("%d connections ended by it", got)
	}
}

// TestMux_Idle: a connection without streams is closed, and so are those of a drained pool.
func TestMux_Idle(t *testing.T) {
	t.Parallel()
	m := newMuxRig(t, 0, func(c *pool.Config) { c.IdleTimeout = 20 * time.Millisecond })
	reset(m.must())
	m.wait("end", func() bool { return m.pool.Size() == 0 })
	if got := m.traffic.CxIdleTimeout.Value(); got != 1 {
		t.Errorf("%d counted", got)
	}
	last := m.must()
	m.pool.Drain(true)
	if m.pool.Size() != 1 {
		t.Error("the stream has lost its connection")
	}
	reset(last)
	m.wait("end of the drained one", func() bool { return m.pool.Size() == 0 })
}

// TestMux_Random: whatever happens in whatever order, every stream begins or fails, and nothing stays
// counted.
func TestMux_Random(t *testing.T) {
	t.Parallel()
	m := newMuxRig(t, 5, func(c *pool.Config) { c.MaxRequests = 40 })
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range 200 {
				enc, f := m.open()
				switch {
				case enc == nil && f == nil:
					t.Error("a stream waits for ever")
					return
				case enc == nil:
					continue
				case r.IntN(20) == 0:
					m.disturb(r)
				}
				reset(enc)
			}
		})
	}
	wg.Wait()
}

// disturb changes the limit of a connection, has it go away or breaks it.
func (m *muxRig) disturb(r *rand.Rand) {
	m.mu.Lock()
	c := m.codecs[r.IntN(len(m.codecs))]
	m.mu.Unlock()
	stream.Do(func(t *stream.Turn) {
		switch r.IntN(3) {
		case 0:
			c.goAway(t)
		case 1:
			c.h.OnLimit(t, uint32(1+r.IntN(5)))
		default:
			c.conn.Close()
		}
	})
}
