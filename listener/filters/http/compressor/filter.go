package compressor

import (
	"slices"
	"strconv"
	"strings"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// stateKey is where the compressors of a chain tell one another that they are there.
const stateKey = "compressors"

// Filter is that of one stream.
type Filter struct {
	cfg    *Config
	s      filter.Stream
	accept string
	has    bool
	slot   *slot // while a response is compressed
}

//nolint:gochecknoglobals // free list
var filters = buf.Pool[Filter]{New: func() *Filter { return new(Filter) }}

// NewFilter implements filter.Factory.
func (c *Config) NewFilter(s filter.Stream) any {
	f := filters.Get()
	f.cfg, f.s = c, s
	return f
}

// chain are the compressors of one stream, in their order.
type chain struct{ list []*Config }

// OnRequestHeaders implements filter.RequestHeaders.
func (f *Filter) OnRequestHeaders(_ *stream.Turn, h *header.Map, _ bool) filter.Action {
	accept, ok := h.Joined("accept-encoding")
	info := f.s.Info()
	x, known := info.FilterState[stateKey].Value.(*chain)
	if !known {
		if !ok {
			f.cfg.stats.NoAccept.Inc()
			return filter.Continue
		}
		x = &chain{}
		info.SetFilterState(stateKey, stream.FilterObject{Value: x})
	}
	x.list = append(x.list, f.cfg)
	// A compressor before this one may have taken the header out.
	f.accept, f.has = strings.Clone(accept), ok
	if f.cfg.removeAccept {
		h.RemoveID(header.AcceptEncoding)
	}
	return filter.Continue
}

// OnResponseHeaders implements filter.ResponseHeaders.
func (f *Filter) OnResponseHeaders(_ *stream.Turn, h *header.Map, end bool) filter.Action {
	c := f.cfg
	if end || !f.has || !c.on() {
		return filter.Continue
	}
	if !c.longEnough(h) || !c.compressible(h) {
		c.stats.NotCompress.Inc()
		return filter.Continue
	}
	addVary(h)
	if f.choose(h) != c.lib.encoding {
		c.stats.NotCompress.Inc()
		return filter.Continue
	}
	if tag, ok := h.GetID(header.Etag); ok && !strings.HasPrefix(tag, "W/") && !strings.HasPrefix(tag, "w/") {
		h.RemoveID(header.Etag)
	}
	h.RemoveID(header.ContentLength)
	h.SetID(header.ContentEncoding, c.lib.encoding)
	f.slot = c.lib.free.Get()
	f.slot.enc.Reset(f.slot)
	c.stats.Compressed.Inc()
	return filter.Continue
}

func (c *Config) longEnough(h *header.Map) bool {
	text, ok := h.GetID(header.ContentLength)
	if !ok {
		return true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err == nil && n < c.minLength {
		c.stats.TooSmall.Inc()
		return false
	}
	return true
}

func (c *Config) compressible(h *header.Map) bool {
	if v, ok := h.GetID(header.CacheControl); ok && hasToken(v, "no-transform") {
		return false
	}
	if h.Has(header.ContentEncoding) {
		return false
	}
	if v, ok := h.GetID(header.TransferEncoding); ok &&
		(hasToken(v, "gzip") || hasToken(v, "deflate") || hasToken(v, "br") || hasToken(v, "zstd")) {
		return false
	}
	if status, err := strconv.Atoi(h.Value(header.Status)); err == nil && (status == 206 || c.skipCodes[status]) {
		return false
	}
	if c.noETag && h.Has(header.Etag) {
		c.stats.ETag.Inc()
		return false
	}
	kind, ok := h.GetID(header.ContentType)
	if !ok {
		return true
	}
	kind, _, _ = strings.Cut(kind, ";")
	return c.types[strings.ToLower(strings.TrimSpace(kind))]
}

func hasToken(list, token string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(part), token) {
			return true
		}
	}
	return false
}

func addVary(h *header.Map) {
	v, ok := h.Joined("vary")
	switch {
	case !ok:
		h.SetID(header.Vary, "Accept-Encoding")
	case !hasToken(v, "accept-encoding"):
		h.SetID(header.Vary, v+", Accept-Encoding")
	}
}

// offer is one item of Accept-Encoding.
type offer struct {
	encoding string
	q        float64
}

// choose returns the encoding that the client likes best among those of the chain's compressors
// ("" for none), as RFC 9110 and CompressorFilter::chooseEncoding say.
func (f *Filter) choose(h *header.Map) string {
	x, ok := f.s.Info().FilterState[stateKey].Value.(*chain)
	if !ok {
		return ""
	}
	var usable []*Config
	for _, c := range x.list {
		if c.on() && c.compressible(h) {
			usable = append(usable, c)
		}
	}
	if len(usable) == 0 { // the runtime has changed meanwhile
		return ""
	}
	offers, valid := parseAccept(f.accept)
	if !valid {
		f.cfg.stats.NotValid.Inc()
		return ""
	}
	for _, o := range offers {
		if o.q <= 0 {
			continue
		}
		switch o.encoding {
		case "identity":
			f.cfg.stats.Identity.Inc()
			return ""
		case "*":
			f.cfg.stats.Wildcard.Inc()
			return usable[0].lib.encoding
		}
		for _, c := range usable {
			if c.lib.encoding != o.encoding {
				continue
			}
			if c == f.cfg {
				c.stats.Used.Inc()
			} else {
				f.cfg.stats.Overshadow.Inc()
			}
			return o.encoding
		}
	}
	f.cfg.stats.NotValid.Inc()
	return ""
}

// parseAccept reads an Accept-Encoding, what is liked best first.
func parseAccept(text string) (out []offer, valid bool) {
	for part := range strings.SplitSeq(text, ",") {
		name, params, _ := strings.Cut(part, ";")
		o := offer{encoding: strings.ToLower(strings.TrimSpace(name)), q: 1}
		if o.encoding == "" {
			continue
		}
		if q, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
			v, err := strconv.ParseFloat(q, 64)
			if err != nil {
				return nil, false
			}
			o.q = v
		}
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(a, b offer) int {
		switch {
		case a.q > b.q:
			return -1
		case a.q < b.q:
			return 1
		}
		return 0
	})
	return out, true
}

// OnResponseData implements filter.ResponseData.
func (f *Filter) OnResponseData(t *stream.Turn, data *buf.Buffer, end bool) filter.Action {
	if f.slot == nil {
		return filter.Continue
	}
	return f.pass(t, data, end)
}

func (f *Filter) pass(t *stream.Turn, data *buf.Buffer, end bool) filter.Action {
	f.cfg.stats.In.Add(uint64(data.Len()))
	if err := f.slot.compress(data, end); err != nil {
		f.s.Reset(t, &stream.Fault{Details: "compressor_failed", Err: err})
		return filter.Done
	}
	f.cfg.stats.Out.Add(uint64(data.Len()))
	return filter.Continue
}

// OnResponseTrailers implements filter.ResponseTrailers: the end of the compressed body goes before
// them.
func (f *Filter) OnResponseTrailers(t *stream.Turn, _ *header.Map) filter.Action {
	if f.slot == nil {
		return filter.Continue
	}
	return f.pass(t, f.s.Held(filter.Response), true)
}

// OnDestroy implements filter.Destroyer.
func (f *Filter) OnDestroy(*stream.Turn) {
	if f.slot != nil {
		f.slot.out = &buf.Buffer{} // of what an encoder may still write as it is reset
		f.cfg.lib.free.Put(f.slot)
	}
	*f = Filter{}
	filters.Put(f)
}
