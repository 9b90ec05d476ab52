package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"sidecar/internal/config/source"
	"sidecar/internal/task"
)

// maxQueued bounds the requests that wait to be sent: a server that answers but doesn't read would
// else make them grow without end.
const maxQueued = 4096

// Handler is told what happens to a stream, in order, on the stream's goroutine.
type Handler interface {
	// Opened tells that requests can be sent; gen counts the openings.
	Opened(gen uint64)
	// Received hands over a response. The next one isn't read before it returns: a slow receiver
	// slows the server down.
	Received(gen uint64, m proto.Message)
	// Closed tells why the stream ended or could not be opened. It will be tried again.
	Closed(gen uint64, err error)
}

// Options describe a stream.
type Options struct {
	// Method is the full gRPC method, "/package.Service/Method".
	Method string
	GRPC   *source.GRPC
	Dialer Dialer
	// NewResponse allocates a message to receive into.
	NewResponse func() proto.Message
	Handler     Handler
	// Stats is counted in for the rate limit.
	Stats *source.ControlPlaneStats
	Log   *slog.Logger
}

// Stream keeps a bidirectional stream to a management server open: when it breaks, it is opened
// again after a back-off, for ever. Each attempt has a connection of its own, so the cluster's load
// balancing picks a host each time.
type Stream struct {
	// Set by Start, never changed.
	opts   Options
	cancel context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex // guards below
	gen   uint64
	abort context.CancelFunc // ends the current opening
	queue []proto.Message
	wake  chan struct{} // holds one token when the queue is not empty
}

// Start opens a stream and keeps it open until Close, or the end of ctx.
func Start(ctx context.Context, opts Options) *Stream {
	ctx, cancel := context.WithCancel(ctx)
	s := &Stream{opts: opts, cancel: cancel, ended: make(chan struct{}), wake: make(chan struct{}, 1)}
	task.Go("xds: stream", func() { s.run(ctx) }, s.panicked)
	return s
}

// Close ends the stream and doesn't wait; Wait does. No handler call starts after Wait has
// returned.
func (s *Stream) Close() { s.cancel() }

// Wait blocks until the stream's goroutines have ended.
func (s *Stream) Wait() { <-s.ended }

// Ended tells whether they have.
func (s *Stream) Ended() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// Send queues a request of the opening gen; it is dropped when that is over. It doesn't block. A
// queue that is full ends the opening: the state is sent anew in the next.
func (s *Stream) Send(gen uint64, m proto.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if gen != s.gen {
		return
	}
	if len(s.queue) >= maxQueued {
		s.abort()
		return
	}
	s.queue = append(s.queue, m)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Stream) panicked(p *task.Panic) {
	s.opts.Log.Error("xds stream stopped", "method", s.opts.Method, "panic", p.Error())
	s.cancel()
	close(s.ended)
}

func (s *Stream) run(ctx context.Context) {
	b := newBackOff(s.opts.GRPC.BackOffBase, s.opts.GRPC.BackOffMax)
	limit := newBucket(s.opts.GRPC.RateLimit)
	for ctx.Err() == nil {
		gen, err := s.once(ctx, &b, limit)
		if ctx.Err() != nil {
			break
		}
		s.opts.Handler.Closed(gen, err)
		if task.Sleep(ctx, b.wait()) != nil {
			break
		}
	}
	close(s.ended)
}

// once opens the stream, and returns when it has ended.
func (s *Stream) once(ctx context.Context, b *backOff, limit *bucket) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gen := s.next(cancel)
	cc, err := connect(s.opts.GRPC, s.opts.Dialer)
	if err != nil {
		return gen, err
	}
	defer cc.Close() //nolint:errcheck // nothing is lost with it
	for _, kv := range s.opts.GRPC.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, kv[0], kv[1]) //nolint:fatcontext // each pair is added to the last
	}
	st, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		s.opts.Method)
	if err != nil {
		return gen, err
	}
	s.opts.Handler.Opened(gen)

	var sending sync.WaitGroup
	sending.Add(1)
	task.Go("xds: send", func() {
		defer sending.Done()
		defer cancel() // the reader must not wait for answers to what can't be sent
		s.send(ctx, st, limit)
	}, nil)
	err = s.receive(gen, st, b)
	cancel()
	sending.Wait()
	return gen, err
}

// next begins an opening: what was queued for the one before is void.
func (s *Stream) next(abort context.CancelFunc) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	s.abort = abort
	s.queue = nil
	return s.gen
}

func (s *Stream) receive(gen uint64, st grpc.ClientStream, b *backOff) error {
	for {
		m := s.opts.NewResponse()
		if err := st.RecvMsg(m); err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the server ended the stream")
			}
			return err
		}
		b.reset()
		s.opts.Handler.Received(gen, m)
	}
}

func (s *Stream) send(ctx context.Context, st grpc.ClientStream, limit *bucket) {
	for {
		m, waiting := s.pop()
		if m == nil {
			select {
			case <-s.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if d := limit.take(time.Now()); d > 0 {
			s.opts.Stats.RateLimitEnforced.Inc()
			s.opts.Stats.PendingRequests.Set(int64(waiting + 1))
			if task.Sleep(ctx, d) != nil {
				return
			}
		}
		if limit != nil {
			s.opts.Stats.PendingRequests.Set(int64(waiting))
		}
		if err := st.SendMsg(m); err != nil {
			return // RecvMsg gives the reason
		}
	}
}

func (s *Stream) pop() (m proto.Message, waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil, 0
	}
	m, s.queue = s.queue[0], s.queue[1:]
	return m, len(s.queue)
}

// bucket is a token bucket; nil never makes anyone wait.
type bucket struct {
	rate, tokens, max float64
	last              time.Time
}

func newBucket(l *source.RateLimit) *bucket {
	if l == nil {
		return nil
	}
	return &bucket{rate: l.FillRate, tokens: float64(l.MaxTokens), max: float64(l.MaxTokens)}
}

// take takes a token and returns how long to wait before it may be spent.
func (b *bucket) take(now time.Time) time.Duration {
	if b == nil {
		return 0
	}
	if !b.last.IsZero() {
		b.tokens = min(b.max, b.tokens+now.Sub(b.last).Seconds()*b.rate)
	}
	b.last = now
	b.tokens--
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}

// String names the stream in logs.
func (s *Stream) String() string {
	return fmt.Sprintf("%s%s %s", s.opts.GRPC.Cluster, s.opts.GRPC.TargetURI, s.opts.Method)
}
