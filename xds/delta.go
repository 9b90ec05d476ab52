package xds

import (
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
)

// deltaState is the incremental protocol of one type on one stream.
type deltaState struct {
	// asked is true once a request was sent on this stream.
	asked bool
	// sent are the names subscribed to on this stream; all, that everything is.
	sent map[string]struct{}
	all  bool
	acks []deltaAck
}

type deltaAck struct {
	nonce string
	err   *statuspb.Status
}

func (s *deltaState) opened() { *s = deltaState{} }

func (f *muxFeed) receiveDelta(m *discoveryv3.DeltaDiscoveryResponse) {
	resp := &response{version: m.GetSystemVersionInfo(), nonce: m.GetNonce(), gen: f.mux.gen}
	resp.items = make([]item, 0, len(m.GetResources()))
	for _, r := range m.GetResources() {
		resp.items = append(resp.items, f.kind.openResource(r))
	}
	resp.removed = m.GetRemovedResources()
	f.apply(resp)
}

func (f *muxFeed) sendDelta() {
	s := &f.delta
	// An acknowledgement goes alone: servers differ in what they make of one with subscriptions.
	acks := s.acks
	s.acks = nil
	for _, a := range acks {
		f.sendDeltaRequest(&discoveryv3.DeltaDiscoveryRequest{
			ResponseNonce: a.nonce, ErrorDetail: a.err,
		})
	}
	all := len(f.all) > 0
	if !s.asked && !all && len(f.named) == 0 {
		return
	}
	first := !s.asked
	req := &discoveryv3.DeltaDiscoveryRequest{}
	req.ResourceNamesSubscribe, req.ResourceNamesUnsubscribe = f.deltaNames(all)
	if !first && len(req.ResourceNamesSubscribe)+len(req.ResourceNamesUnsubscribe) == 0 {
		return
	}
	if first {
		req.InitialResourceVersions = f.versions()
	}
	f.sendDeltaRequest(req)
}

// deltaNames works out what to subscribe to and unsubscribe from.
func (f *muxFeed) deltaNames(all bool) (add, drop []string) {
	s := &f.delta
	if s.sent == nil {
		s.sent = make(map[string]struct{}, len(f.named))
	}
	for name := range f.named {
		if _, sent := s.sent[name]; !sent {
			add = append(add, name)
			s.sent[name] = struct{}{}
		}
	}
	for name := range s.sent {
		if f.named[name] == nil {
			drop = append(drop, name)
			delete(s.sent, name)
		}
	}
	slices.Sort(add)
	slices.Sort(drop)
	switch {
	case all && !s.all && (s.asked || len(add) > 0):
		// A first request without names means everything already.
		add = append([]string{"*"}, add...)
	case !all && s.all:
		drop = append([]string{"*"}, drop...)
	}
	s.all = all
	return add, drop
}

// versions are those of the resources that are held, so that a server that is met again sends only
// what has changed.
func (f *muxFeed) versions() map[string]string {
	out := make(map[string]string, len(f.entries))
	for name, e := range f.entries {
		if e.cur != nil && e.version != "" {
			out[name] = e.version
		}
	}
	return out
}

func (f *muxFeed) sendDeltaRequest(req *discoveryv3.DeltaDiscoveryRequest) {
	req.TypeUrl = f.kind.url
	if !f.mux.nodeSent || !f.mux.cfg.SetNodeOnFirstMessageOnly {
		req.Node = f.mux.c.cfg.Node
	}
	f.mux.nodeSent, f.delta.asked = true, true
	f.mux.stream.Send(f.mux.gen, req)
}
