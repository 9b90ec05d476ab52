package hcm

import (
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
)

// localReply is a compiled local_reply_config.
type localReply struct {
	mappers []mapper
	body    Formatter
}

type mapper struct {
	match  func(*stream.Info) bool
	status int
	body   []byte
	format Formatter
	add    func(*header.Map, *stream.Info)
}

func (c *Config) compileLocalReply(m *hcmv3.LocalReplyConfig, env *Env, errs *config.Errors) {
	if m == nil {
		return
	}
	p := config.Field("local_reply_config")
	localReplyFields.Check(p, m, errs)
	if env.Format == nil || env.LogFilter == nil || env.Mutations == nil {
		errs.Add(p, "is not supported here")
		return
	}
	lr := &localReply{}
	if f := m.GetBodyFormat(); f != nil {
		lr.body = env.Format(p.Field("body_format"), f, errs)
	}
	for i, rm := range m.GetMappers() {
		mp := p.Field("mappers").Index(i)
		mapperFields.Check(mp, rm, errs)
		x := mapper{status: int(rm.GetStatusCode().GetValue())}
		if rm.GetFilter() == nil {
			errs.Add(mp.Field("filter"), "is required")
			continue
		}
		x.match = env.LogFilter(mp.Field("filter"), rm.GetFilter(), errs)
		if b := rm.GetBody(); b != nil {
			x.body, _ = config.ReadDataSource(mp.Field("body"), b, 1<<20, errs)
		}
		if f := rm.GetBodyFormatOverride(); f != nil {
			x.format = env.Format(mp.Field("body_format_override"), f, errs)
		}
		x.add = env.Mutations(mp.Field("headers_to_add"), rm.GetHeadersToAdd(), errs)
		lr.mappers = append(lr.mappers, x)
	}
	c.localReply = lr
}

// rewrite applies the first mapper that matches, and the body format: it changes the head and
// returns the body (Envoy: LocalReplyImpl::rewrite).
func (lr *localReply) rewrite(s *Stream, h *header.Map, r *filter.Reply) string {
	body, format := r.Body, lr.body
	s.info.Response = h
	for i := range lr.mappers {
		m := &lr.mappers[i]
		if !m.match(&s.info) {
			continue
		}
		if m.add != nil {
			m.add(h, &s.info)
		}
		if m.status != 0 {
			s.info.Status = m.status
			if !s.isGRPC {
				h.SetStatic(header.Status, statusText(m.status))
			}
		}
		if m.body != nil {
			body = string(m.body)
			s.info.LocalReplyBody = body
		}
		if m.format != nil {
			format = m.format
		}
		break
	}
	if format == nil {
		return body
	}
	s.info.LocalReplyBody = body
	h.SetStatic(header.ContentType, format.ContentType())
	return string(format.Append(nil, &s.info))
}
