package wasmhost

import (
	"context"
	"errors"
	"net/url"
	"strconv"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/task"
	"sidecar/wasmhost/code"
)

var errNoAnswer = errors.New("the request ended without an answer")

// fetchOverCluster asks a cluster for a plugin's code, as Envoy's fetcher of remote data does. It blocks.
func (h *Host) fetchOverCluster(ctx context.Context, r *code.Remote, limit int64) (status int, body []byte, err error) {
	u, err := url.Parse(r.URI)
	if err != nil {
		return 0, nil, err
	}
	if h.opts.Calls == nil || !h.opts.Calls.HasCluster(r.Cluster) {
		return 0, nil, ErrNoCluster
	}
	m := new(header.Map)
	m.Add(":method", "GET")
	m.Add(":path", u.RequestURI())
	m.Add(":authority", u.Host)
	m.Add(":scheme", u.Scheme)
	answered := make(chan CallResult, 1)
	type started struct {
		cancel func(*stream.Turn)
		err    error
	}
	begun := make(chan started, 1)
	task.Go("wasm fetch call", func() {
		stream.Do(func(t *stream.Turn) {
			cancel, err := h.opts.Calls.CallHTTP(t, &CallRequest{
				Cluster: r.Cluster, Headers: m, Timeout: r.Timeout, BodyLimit: limit,
			}, func(_ *stream.Turn, res CallResult) { answered <- res })
			begun <- started{cancel, err}
		})
	}, h.panicked)
	b := <-begun
	if b.err != nil {
		return 0, nil, b.err
	}
	select {
	case res := <-answered:
		if res.Headers == nil {
			return 0, nil, errNoAnswer
		}
		status, err = strconv.Atoi(res.Headers.Value(header.Status))
		return status, res.Body, err
	case <-ctx.Done():
		if b.cancel != nil {
			stream.Do(b.cancel)
		}
		return 0, nil, ctx.Err()
	}
}
