package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/internal/bench/load"
	"sidecar/internal/bench/upstream"
	"sidecar/internal/task"
)

const swapsPerSecond = 20

// runSwap replaces the plugin under full load. Each answer says which version saw the request (the
// upstream sends that back) and which saw the response: they must be the same, once each.
func runSwap(ctx context.Context, e *env) error {
	if err := e.needPlugin(); err != nil {
		return err
	}
	s, err := e.start(ctx, e.ours(shape{plugin: e.plugin, version: "v0", ecds: true}))
	if err != nil {
		return err
	}
	defer s.stop()
	if err := awaitPlugin(ctx, s, 30*time.Second); err != nil {
		return err
	}
	early, total := 5*time.Second, 30*time.Second
	if e.short {
		early, total = time.Second, 3*time.Second
	}
	// Pools are filled before anything is counted.
	if err := churn(s, 200); err != nil {
		return err
	}
	before, err := s.flushedHoldings(ctx)
	if err != nil {
		return err
	}
	r := swapRun{s: s, versions: map[string]int{}}
	early5, late, err := r.run(ctx, early, total)
	if err != nil {
		return err
	}
	after, err := s.settledHoldings(ctx, before)
	if err != nil {
		return err
	}
	e.note("%d answers, %d swaps, %d versions seen, %.0f answers/s", r.answers, r.swaps.Load(),
		len(r.versions), float64(r.answers)/total.Seconds())
	e.note("before %s", before)
	e.note("after  %s", after)
	for i, err := range r.errs {
		if i < 5 {
			e.note("failure: %v", err)
		}
	}
	e.atMost("swap", "failed requests, resets, closes, mixed versions", float64(len(r.errs)), "", "", 0)
	e.atLeast("swap", "versions that answered, of each swap", float64(len(r.versions))/
		float64(max(1, r.swaps.Load())), 0.8)
	e.atMost("swap", fmt.Sprintf("RSS after %.0f s, as a part of that after %.0f s", total.Seconds(),
		early.Seconds()), float64(late)/float64(early5), "", "", 1.05)
	e.atMost("swap", "VMs left over", after.vms-before.vms, "", "", 0)
	e.atMost("swap", "goroutines left over", after.goroutines-before.goroutines, "", "", 0)
	e.atMost("swap", "memfds left over", float64(after.memfds-before.memfds), "", "", 0)
	e.atMost("swap", "mappings left over, as a part of those before",
		float64(after.maps)/float64(before.maps), "", "", 1.1)
	return nil
}

// awaitPlugin waits until the plugin answers: it comes after the listener.
func awaitPlugin(ctx context.Context, s *subject, within time.Duration) error {
	deadline := time.Now().Add(within)
	request := load.Request(upstream.PathEcho)
	for {
		c, err := load.Dial(s.httpAddress())
		if err == nil {
			var resp load.Response
			resp, err = c.Do(request, 5*time.Second)
			_ = c.Close()
			if err == nil && len(resp.Header["x-plugin-response"]) == 1 {
				return nil
			}
			if err == nil {
				err = fmt.Errorf("status %d, headers %v", resp.Status, resp.Header)
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no answer from the plugin within %s: %w\n%s", within, err,
				s.proc.LogTail(1500))
		}
		if err := task.Sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// swapRun is one run of the load beside the swaps.
type swapRun struct {
	s     *subject
	swaps atomic.Int64

	mu       sync.Mutex // guards below
	versions map[string]int

	answers int64
	errs    []error
}

func (r *swapRun) run(ctx context.Context, early, total time.Duration) (rssEarly, rssLate int64, err error) {
	loadCtx, cancel := context.WithTimeout(ctx, total+200*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		r.answers, r.errs = load.Closed(loadCtx, r.s.httpAddress(), benchConns,
			load.Request(upstream.PathEcho), r.check)
	})
	var swapErr error
	wg.Go(func() { swapErr = r.swap(loadCtx, total) })
	read := func(at time.Duration) (int64, error) {
		if err := task.Sleep(ctx, at); err != nil {
			return 0, err
		}
		u, err := r.s.proc.Usage()
		return u.RSS, err
	}
	if rssEarly, err = read(early); err == nil {
		rssLate, err = read(total - early)
	}
	wg.Wait()
	if err == nil {
		err = swapErr
	}
	return rssEarly, rssLate, err
}

func (r *swapRun) swap(ctx context.Context, total time.Duration) error {
	tick := time.NewTicker(time.Second / swapsPerSecond)
	defer tick.Stop()
	end := time.Now().Add(total)
	for i := 1; time.Now().Before(end); i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := r.s.writeECDS("v" + strconv.Itoa(i)); err != nil {
			return err
		}
		r.swaps.Add(1)
	}
	return nil
}

func (r *swapRun) check(resp load.Response) error {
	if resp.Status != 200 {
		return fmt.Errorf("status %d", resp.Status)
	}
	if resp.Close {
		return errors.New("connection: close")
	}
	answered, seen := resp.Header["x-plugin-response"], resp.Header["x-seen"]
	if len(answered) != 1 || len(seen) != 1 || answered[0] != seen[0] || answered[0] == "" {
		return fmt.Errorf("versions of the request %q, of the response %q, in %d bytes under %v", seen,
			answered, resp.Body, resp.Header)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.versions[answered[0]]++
	return nil
}
