package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/internal/bench/load"
	"sidecar/internal/bench/upstream"
	"sidecar/internal/task"
)

const (
	guestDeadline = "0.100s"
	loopHeader    = "x-loop: 1"
)

// startLimited starts the sidecar with a plugin whose callbacks are cut off; Envoy has no such limit,
// so these benches have no comparison.
func (e *env) startLimited(ctx context.Context) (*subject, error) {
	if err := e.needPlugin(); err != nil {
		return nil, err
	}
	if e.sidecar == e.envoy {
		return nil, fmt.Errorf("%w: Envoy has no deadline for plugins", errSkip)
	}
	s, err := e.start(ctx, e.ours(shape{
		plugin: e.plugin, version: "v1", policy: "FAIL_RELOAD", deadline: guestDeadline,
	}))
	if err != nil {
		return nil, err
	}
	if err := awaitPlugin(ctx, s, 30*time.Second); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// runReload keeps an open loop going in which one request of a hundred never comes back.
func runReload(ctx context.Context, e *env) error {
	s, err := e.startLimited(ctx)
	if err != nil {
		return err
	}
	defer s.stop()
	o := load.Open{
		Address:  s.httpAddress(),
		Requests: []string{load.Request(upstream.PathEcho), load.Request(upstream.PathEcho, loopHeader)},
		Pick: func(i int) int {
			if i%100 == 50 {
				return 1
			}
			return 0
		},
		Rate: 1000, For: 20 * time.Second, Within: 5 * time.Second, MaxConns: 4000,
	}
	if e.short {
		o.For = 3 * time.Second
	}
	before, err := s.proc.Usage()
	if err != nil {
		return err
	}
	threads := watchThreads(ctx, s)
	samples := o.Run(ctx)
	peak := threads()
	after, err := s.proc.Usage()
	if err != nil {
		return err
	}
	judgeReload(e, samples)
	e.note("threads: %d before, %d at most; RSS %.1f MB before, %.1f after", before.Threads, peak,
		megabytes(before.RSS), megabytes(after.RSS))
	e.atMost("reload", "threads more than before, at most", float64(peak-before.Threads), "", "", 32)
	e.atLeast("reload", "the process lives", float64(btoi(s.proc.Alive())), 1)
	// Back: the plugin itself answers again.
	start := time.Now()
	if err := awaitPlugin(ctx, s, 10*time.Second); err != nil {
		return err
	}
	e.atMost("reload", "the plugin is back after the last loop", time.Since(start).Seconds(), "", "s", 1.5)
	return nil
}

// judgeReload looks at the samples: what looping requests got, and how long all others took.
func judgeReload(e *env, samples []load.Sample) {
	var loopSlowest, otherSlowest time.Duration
	var loops, loops503, others, others200, broken int
	for _, sample := range samples {
		if sample.Err != nil {
			broken++
			if broken <= 3 {
				e.note("failure at %.2f s: %v", sample.At.Seconds(), sample.Err)
			}
		}
		if sample.Kind == 1 {
			loops++
			loops503 += btoi(sample.Status == 503)
			loopSlowest = max(loopSlowest, sample.Took)
			continue
		}
		others++
		if sample.Status == 200 {
			others200++
		}
		otherSlowest = max(otherSlowest, sample.Took)
	}
	kills, longest := absence(samples)
	e.note("%d looping requests, %d got 503, %d of them ended a VM; %d others, %d got 200", loops,
		loops503, kills, others, others200)
	e.atMost("reload", "requests without an answer", float64(broken), "", "", 0)
	e.atLeast("reload", "looping requests answered 503, as a part", float64(loops503)/float64(max(1, loops)),
		1)
	e.atMost("reload", "slowest answer to a looping request", milliseconds(loopSlowest), "", "ms", 300)
	e.atMost("reload", "slowest answer to any other request", milliseconds(otherSlowest), "", "ms", 300)
	e.atMost("reload", "longest time without the plugin", longest.Seconds(), "", "s", 1.5)
}

// absence counts the loops that reached the plugin, which are those that took as long as the deadline,
// and returns the longest time from such an end until the plugin was seen at work again: it passed
// a request on, or began on the next one that loops.
func absence(samples []load.Sample) (kills int, longest time.Duration) {
	const reached = 90 * time.Millisecond
	var ended time.Duration
	absent := false
	for _, s := range samples {
		ran := s.Kind == 1 && s.Took >= reached
		back := ran || s.Kind == 0 && s.Status == 200
		if absent && back && s.At > ended {
			longest, absent = max(longest, s.At-ended), false
		}
		if ran {
			kills++
			ended, absent = s.At+s.Took, true
		}
	}
	return kills, longest
}

// watchThreads samples the number of threads until the returned function is called, which gives the
// highest.
func watchThreads(ctx context.Context, s *subject) func() int {
	ctx, cancel := context.WithCancel(ctx)
	var highest atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for task.Sleep(ctx, 50*time.Millisecond) == nil {
			if u, err := s.proc.Usage(); err == nil {
				highest.Store(max(highest.Load(), int64(u.Threads)))
			}
		}
	})
	return func() int {
		cancel()
		wg.Wait()
		return int(highest.Load())
	}
}

// runLoops sends nothing but requests that loop for ever; the process must get through them.
func runLoops(ctx context.Context, e *env) error {
	s, err := e.startLimited(ctx)
	if err != nil {
		return err
	}
	defer s.stop()
	total := int64(20000)
	if e.short {
		total = 500
	}
	threads := watchThreads(ctx, s)
	var sent, answered atomic.Int64
	request := load.Request(upstream.PathEcho, loopHeader)
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 500 {
		wg.Go(func() {
			for sent.Add(1) <= total && ctx.Err() == nil {
				if loopOnce(s, request) == nil {
					answered.Add(1)
				}
			}
		})
	}
	wg.Wait()
	peak := threads()
	e.note("%d streams, %d answered, %d threads at most", min(sent.Load(), total), answered.Load(), peak)
	e.atLeast("loops", "streams sent", float64(min(sent.Load(), total)), float64(total))
	e.atLeast("loops", "the process lives", float64(btoi(s.proc.Alive())), 1)
	e.atMost("loops", "threads", float64(peak), "", "", 100)
	if !s.proc.Alive() {
		return errors.New("the process died: " + s.proc.LogTail(2000))
	}
	return awaitPlugin(ctx, s, 30*time.Second)
}

func loopOnce(s *subject, request string) error {
	c, err := load.Dial(s.httpAddress())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Do(request, 20*time.Second)
	return err
}
