package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Closed runs n connections that each send the next request when the answer is there, until ctx
// ends. check sees every answer; the first error of each connection ends it. It returns the number
// of answers and the errors.
func Closed(ctx context.Context, address string, n int, request string,
	check func(Response) error,
) (answers int64, errs []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			count, err := closedConn(ctx, address, request, check)
			mu.Lock()
			defer mu.Unlock()
			answers += count
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return answers, errs
}

func closedConn(ctx context.Context, address, request string, check func(Response) error,
) (int64, error) {
	c, err := Dial(address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var n int64
	for ctx.Err() == nil {
		resp, err := c.Do(request, 10*time.Second)
		if err != nil {
			return n, fmt.Errorf("after %d answers: %w", n, err)
		}
		n++
		if err := check(resp); err != nil {
			return n, fmt.Errorf("answer %d: %w", n, err)
		}
	}
	return n, nil
}

// Sample is one request of an open loop.
type Sample struct {
	Kind   int           // which request
	At     time.Duration // since the start, when it was due
	Took   time.Duration // since it was due
	Status int           // 0 when there was no answer
	Err    error
}

// Open is an open loop: requests are sent when they are due, whether earlier ones are answered or
// not, so that a stall shows up in every request that was due during it.
type Open struct {
	Address  string
	Requests []string        // formatted
	Pick     func(i int) int // which request is the i-th
	Rate     int             // a second
	For      time.Duration   // how long requests are sent
	Within   time.Duration   // for an answer
	MaxConns int             // connections at once; more are failures
}

// Run sends the requests and returns a sample for each.
func (o *Open) Run(ctx context.Context) []Sample {
	n := int(o.For.Seconds() * float64(o.Rate))
	samples := make([]Sample, n)
	idle := make(chan *Client, o.MaxConns)
	slots := make(chan struct{}, o.MaxConns)
	gap := time.Second / time.Duration(o.Rate)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		due := start.Add(time.Duration(i) * gap)
		// Sleeping is imprecise by up to a millisecond: what is late is sent at once, its time counts
		// from when it was due.
		if d := time.Until(due); d > 0 {
			time.Sleep(d)
		}
		if ctx.Err() != nil {
			samples = samples[:i]
			break
		}
		kind := o.Pick(i)
		s := &samples[i]
		*s = Sample{Kind: kind, At: due.Sub(start)}
		select {
		case slots <- struct{}{}:
		default:
			s.Err = fmt.Errorf("%d connections busy", o.MaxConns)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			s.Status, s.Err = o.send(idle, o.Requests[kind])
			s.Took = time.Since(due)
		})
	}
	wg.Wait()
	close(idle)
	for c := range idle {
		_ = c.Close()
	}
	return samples
}

func (o *Open) send(idle chan *Client, request string) (int, error) {
	var c *Client
	select {
	case c = <-idle:
	default:
		var err error
		if c, err = Dial(o.Address); err != nil {
			return 0, err
		}
	}
	resp, err := c.Do(request, o.Within)
	if err != nil || resp.Close {
		_ = c.Close()
		return resp.Status, err
	}
	select {
	case idle <- c:
	default:
		_ = c.Close()
	}
	return resp.Status, nil
}
