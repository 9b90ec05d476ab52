package wasmcli

import (
	"strconv"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

var _ filter.Stream = (*driver)(nil)

// Info implements filter.Record.
func (d *driver) Info() *stream.Info { return &d.info }

// Held implements filter.Bodies.
func (d *driver) Held(dir filter.Direction) *buf.Buffer {
	if b := d.side[dir].showing; b != nil {
		return b
	}
	return &d.side[dir].held
}

// AddTrailers implements filter.Bodies.
func (d *driver) AddTrailers(dir filter.Direction) *header.Map {
	m := &d.trailers[dir]
	if dir == filter.Request {
		d.info.RequestTrailers = m
	} else {
		d.info.ResponseTrailers = m
	}
	return m
}

// Watermark implements filter.Bodies.
func (d *driver) Watermark(_ *stream.Turn, dir filter.Direction, on bool) { d.side[dir].watermark = on }

// Reply implements filter.Control.
func (d *driver) Reply(t *stream.Turn, r *filter.Reply) {
	if d.over {
		return
	}
	d.requestCut = true
	if d.result.downstream.headers != nil {
		d.Reset(t, &stream.Fault{Details: "a local reply after the response has begun"})
		return
	}
	direct := d.info.Response != nil
	d.response.Reset()
	d.response.Add(":status", strconv.Itoa(r.Status))
	if r.Body != "" {
		d.response.Add("content-length", strconv.Itoa(len(r.Body)))
		d.response.Add("content-type", "text/plain")
	}
	if r.Headers != nil {
		r.Headers(&d.response)
	}
	d.info.Response, d.info.Details = &d.response, r.Details
	d.result.local, d.result.details = true, r.Details
	s := &d.side[filter.Response]
	s.held.Reset()
	*s = half{seq: s.seq + 1}
	var b buf.Buffer
	b.AppendString(r.Body)
	defer b.Reset()
	// As in Envoy: the reply to a response's headers passes no filter.
	if direct {
		d.passHeaders(t, filter.Response, r.Body == "")
		if r.Body != "" {
			d.passData(t, filter.Response, &b, true)
		}
		return
	}
	d.pushHeaders(t, filter.Response, r.Body == "")
	if r.Body != "" && !d.over {
		d.pushData(t, filter.Response, &b, true)
	}
}

// Reset implements filter.Control.
func (d *driver) Reset(_ *stream.Turn, f *stream.Fault) {
	d.over, d.result.reset = true, "reset"
	if f != nil && f.Details != "" {
		d.result.reset, d.info.Details = f.Details, f.Details
	}
}

// Pause implements filter.Control.
func (d *driver) Pause(dir filter.Direction) filter.Resume {
	s := &d.side[dir]
	s.seq++
	return filter.Resume{Target: d.target(), Seq: s.seq<<1 | uint32(dir)}
}

// Route implements filter.Routing.
func (d *driver) Route() filter.Route {
	if d.x.Route == "" && d.x.Cluster == "" {
		return nil
	}
	return route{d.x}
}

// ClearRouteCache implements filter.Routing: there is one route.
func (d *driver) ClearRouteCache() {}

// RouteConfig implements filter.Routing.
func (d *driver) RouteConfig() any { return nil }

type route struct{ x *exchange }

// Name implements filter.Route.
func (r route) Name() string { return r.x.Route }

// ClusterName implements filter.Route.
func (r route) ClusterName() string { return r.x.Cluster }
