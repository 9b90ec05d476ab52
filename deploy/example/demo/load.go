package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// answerTimeout is how long one answer may take before the request counts as failed.
const answerTimeout = 10 * time.Second

// load keeps connections busy, one request after the other on each, and judges each answer. A
// connection that fails or is closed stays closed and is counted: it must not hide behind a new one.
type load struct {
	addr string
	stop atomic.Bool
	wg   sync.WaitGroup

	requests, failed, closed, wrong atomic.Int64
	// first is what went wrong first.
	first atomic.Value
	// want is the version that has to serve what is sent from now on; empty: any. Each expect stores
	// a new pointer.
	want atomic.Pointer[string]

	mu     sync.Mutex // guards below
	counts map[string]int
}

func newLoad(addr string) *load { return &load{addr: addr, counts: map[string]int{}} }

func (l *load) expect(version string) { l.want.Store(&version) }
func (l *load) expected() string      { return *l.want.Load() }

// open connects and starts to send.
func (l *load) open(ctx context.Context, connections int) error {
	for range connections {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", l.addr)
		if err != nil {
			l.close()
			return err
		}
		l.wg.Go(func() {
			defer c.Close()
			l.keepBusy(c)
		})
	}
	return nil
}

// close lets each connection finish its request and waits for that.
func (l *load) close() {
	l.stop.Store(true)
	l.wg.Wait()
}

// take gives the answers by version since it was last called.
func (l *load) take() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := l.counts
	l.counts = map[string]int{}
	return counts
}

func (l *load) keepBusy(c net.Conn) {
	r := bufio.NewReader(c)
	for !l.stop.Load() {
		l.requests.Add(1)
		closing, err := l.request(c, r)
		if err != nil {
			l.failed.Add(1)
			l.note(err)
			return
		}
		if closing {
			l.closed.Add(1)
			l.note(errors.New("the connection was closed"))
			return
		}
	}
}

func (l *load) note(err error) { l.first.CompareAndSwap(nil, err.Error()) }

// request sends one request, reads its answer and judges it.
func (l *load) request(c net.Conn, r *bufio.Reader) (closing bool, err error) {
	want := l.want.Load()
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return false, err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nhost: demo\r\n\r\n"); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return false, err
	}
	if res.StatusCode != http.StatusOK || string(body) != greeting {
		return false, fmt.Errorf("answered %s, %q", res.Status, body)
	}
	versions := res.Header.Values("x-plugin-version")
	// A push that came in between may have been faster than the request.
	changed := *want == "" || l.want.Load() != want
	if len(versions) != 1 || (!changed && versions[0] != *want) {
		l.wrong.Add(1)
		l.note(fmt.Errorf("served by %q, not by %q", versions, *want))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range versions {
		l.counts[v]++
	}
	return res.Close, nil
}
