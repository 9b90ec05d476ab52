package wasmcli

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/task"
	"sidecar/wasmhost"
)

// clusters answers call-outs from a scenario. It implements wasmhost.Caller.
type clusters struct {
	answers map[string][]answer
	out     *printer

	mu   sync.Mutex // guards below
	next map[string]int
	told map[string]bool
}

// HasCluster implements wasmhost.Caller.
func (c *clusters) HasCluster(name string) bool {
	if _, ok := c.answers[name]; ok {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.told[name] {
		c.told[name] = true
		c.out.line("! the plugin calls cluster %q, which nothing describes: --cluster %s=200 answers it", name, clean(name))
	}
	return false
}

// CallHTTP implements wasmhost.Caller.
func (c *clusters) CallHTTP(_ *stream.Turn, r *wasmhost.CallRequest,
	done func(*stream.Turn, wasmhost.CallResult),
) (func(*stream.Turn), error) {
	list := c.answers[r.Cluster]
	if list == nil {
		return nil, wasmhost.ErrNoCluster
	}
	c.mu.Lock()
	i := c.next[r.Cluster]
	c.next[r.Cluster]++
	c.mu.Unlock()
	a := list[min(i, len(list)-1)]
	c.out.line("call-out to cluster %q:", r.Cluster)
	c.out.message(outcome{headers: listOf(r.Headers), body: r.Body})
	res, delay := reply(a), time.Duration(a.Delay)
	if a.Reset {
		res = reply(answer{Status: 503, Body: "upstream connect error or disconnect/reset before headers. reset reason: connection termination"})
	}
	if r.Timeout > 0 && delay > r.Timeout {
		res, delay = reply(answer{Status: 504, Body: "upstream request timeout"}), r.Timeout
	}
	var once sync.Once
	timer := time.AfterFunc(delay, func() {
		task.Go("call-out", func() {
			once.Do(func() { stream.Do(func(t *stream.Turn) { done(t, res) }) })
		}, nil)
	})
	return func(*stream.Turn) {
		timer.Stop()
		once.Do(func() {})
	}, nil
}

func reply(a answer) wasmhost.CallResult {
	r := wasmhost.CallResult{Headers: new(header.Map), Body: []byte(a.Body)}
	status := a.Status
	if status == 0 {
		status = 200
	}
	if !has(a.Headers, ":status") {
		r.Headers.Add(":status", strconv.Itoa(status))
	}
	for _, h := range a.Headers {
		r.Headers.Add(h[0], h[1])
	}
	if len(a.Trailers) > 0 {
		r.Trailers = new(header.Map)
		for _, h := range a.Trailers {
			r.Trailers.Add(h[0], h[1])
		}
	}
	return r
}

// parseCluster reads NAME=STATUS[:BODY].
func parseCluster(text string) (name string, a answer, err error) {
	name, rest, ok := strings.Cut(text, "=")
	status, body, _ := strings.Cut(rest, ":")
	a.Status, err = strconv.Atoi(status)
	if !ok || name == "" || err != nil || a.Status < 200 || a.Status > 999 {
		return "", answer{}, fmt.Errorf("a cluster is NAME=STATUS or NAME=STATUS:BODY, not %q", text)
	}
	a.Body = body
	return name, a, nil
}
