package xds

import (
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
)

// sotwState is the state-of-the-world protocol of one type on one stream.
type sotwState struct {
	// version is that of the last response that was accepted; it outlives the stream.
	version string
	// nonce is that of the last response received on this stream.
	nonce string
	// asked is true once a request was sent on this stream.
	asked bool
	dirty bool
	rev   uint64 // of the names that were sent last
	// nack goes with the next request, once.
	nack *statuspb.Status
}

func (s *sotwState) opened() {
	s.nonce, s.asked, s.dirty, s.nack = "", false, true, nil
}

// replied prepares the answer to a response; gen is the stream that is open. What was accepted
// counts even when the stream that it came from is gone.
func (s *sotwState) replied(r *reply, gen uint64) {
	bad := nack(r.text())
	if bad == nil {
		s.version = r.version
	}
	if r.gen == gen {
		s.dirty, s.nack = true, bad
	}
}

func (f *muxFeed) receiveSotw(m *discoveryv3.DiscoveryResponse) {
	resp := &response{
		version: m.GetVersionInfo(), nonce: m.GetNonce(), gen: f.mux.gen, sotw: true,
	}
	resp.items = make([]item, 0, len(m.GetResources()))
	for _, a := range m.GetResources() {
		resp.items = append(resp.items, f.kind.openAny(a, m.GetVersionInfo()))
	}
	// From here on a request with an older nonce would be ignored by the server.
	f.sotw.nonce, f.sotw.nack = m.GetNonce(), nil
	f.apply(resp)
}

func (f *muxFeed) sendSotw() {
	s := &f.sotw
	if !s.dirty {
		return
	}
	names := f.names()
	all := len(f.all) > 0
	if !s.asked && !all && len(names) == 0 {
		return // as a first request an empty list would ask for everything
	}
	switch {
	case all && len(names) == 0:
		names = nil
	case all:
		names = append([]string{"*"}, names...)
	}
	req := &discoveryv3.DiscoveryRequest{
		VersionInfo: s.version, ResourceNames: names, TypeUrl: f.kind.url,
		ResponseNonce: s.nonce, ErrorDetail: s.nack,
	}
	if !f.mux.nodeSent || !f.mux.cfg.SetNodeOnFirstMessageOnly {
		req.Node = f.mux.c.cfg.Node
	}
	f.mux.nodeSent = true
	s.asked, s.dirty, s.nack, s.rev = true, false, nil, f.rev
	f.mux.stream.Send(f.mux.gen, req)
}
