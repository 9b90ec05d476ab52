package xdstest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
)

// Kind tells what an Event is.
type Kind uint8

// The kinds of events.
const (
	Unset Kind = iota
	// Opened: a client opened a stream.
	Opened
	// Closed: a stream ended.
	Closed
	// Subscribed: a request that answers nothing, with the names it asks for.
	Subscribed
	// ACK: a response was accepted.
	ACK
	// NACK: a response was rejected.
	NACK
)

// Event is something that a client did.
type Event struct {
	Kind    Kind
	Stream  int64
	TypeURL string
	// Version of the response that is answered.
	Version string
	// Error is the text of a NACK.
	Error string
	// Names asked for, Unsubscribed given up (delta only).
	Names, Unsubscribed []string
	// Node is set when the request carried one.
	Node *corev3.Node
	// InitialVersions of a first delta request.
	InitialVersions map[string]string
}

// eventLog remembers all events of a server.
type eventLog struct {
	mu       sync.Mutex // guards below
	events   []Event
	changed  chan struct{}     // closed at the next event
	versions map[string]string // of responses, by type and nonce
}

func newEventLog() *eventLog {
	return &eventLog{changed: make(chan struct{}), versions: map[string]string{}}
}

func (l *eventLog) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
	close(l.changed)
	l.changed = make(chan struct{})
}

func nonceKey(stream int64, url, nonce string) string {
	return fmt.Sprintf("%d %s %s", stream, url, nonce)
}

func (l *eventLog) sent(stream int64, url, nonce, version string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions[nonceKey(stream, url, nonce)] = version
}

// answered fills in what a request says about a response.
func (l *eventLog) answered(e *Event, nonce string, detail *statuspb.Status) {
	e.Kind = Subscribed
	if nonce == "" {
		return
	}
	l.mu.Lock()
	e.Version = l.versions[nonceKey(e.Stream, e.TypeURL, nonce)]
	l.mu.Unlock()
	e.Kind = ACK
	if detail != nil {
		e.Kind, e.Error = NACK, detail.GetMessage()
	}
}

// OnStreamOpen and the other On methods are go-control-plane's callbacks.
func (l *eventLog) OnStreamOpen(_ context.Context, id int64, url string) error {
	l.add(Event{Kind: Opened, Stream: id, TypeURL: url})
	return nil
}

func (l *eventLog) OnStreamClosed(id int64, _ *corev3.Node) {
	l.add(Event{Kind: Closed, Stream: id})
}

func (l *eventLog) OnDeltaStreamOpen(ctx context.Context, id int64, url string) error {
	return l.OnStreamOpen(ctx, id, url)
}

func (l *eventLog) OnDeltaStreamClosed(id int64, n *corev3.Node) { l.OnStreamClosed(id, n) }

func (l *eventLog) OnStreamRequest(id int64, r *discoveryv3.DiscoveryRequest) error {
	e := Event{
		Stream: id, TypeURL: r.GetTypeUrl(), Names: slices.Clone(r.GetResourceNames()),
		Node: r.GetNode(),
	}
	l.answered(&e, r.GetResponseNonce(), r.GetErrorDetail())
	l.add(e)
	return nil
}

func (l *eventLog) OnStreamDeltaRequest(id int64, r *discoveryv3.DeltaDiscoveryRequest) error {
	e := Event{
		Stream: id, TypeURL: r.GetTypeUrl(), Names: slices.Clone(r.GetResourceNamesSubscribe()),
		Unsubscribed: slices.Clone(r.GetResourceNamesUnsubscribe()), Node: r.GetNode(),
		InitialVersions: r.GetInitialResourceVersions(),
	}
	l.answered(&e, r.GetResponseNonce(), r.GetErrorDetail())
	l.add(e)
	return nil
}

func (l *eventLog) OnStreamResponse(_ context.Context, id int64, _ *discoveryv3.DiscoveryRequest,
	r *discoveryv3.DiscoveryResponse,
) {
	l.sent(id, r.GetTypeUrl(), r.GetNonce(), r.GetVersionInfo())
}

func (l *eventLog) OnStreamDeltaResponse(id int64, _ *discoveryv3.DeltaDiscoveryRequest,
	r *discoveryv3.DeltaDiscoveryResponse,
) {
	l.sent(id, r.GetTypeUrl(), r.GetNonce(), r.GetSystemVersionInfo())
}

// Events returns what has happened so far.
func (s *Server) Events() []Event {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return slices.Clone(s.log.events)
}

// Wait returns the first event, past or to come, that match accepts; an error when ctx ends first.
func (s *Server) Wait(ctx context.Context, match func(Event) bool) (Event, error) {
	return s.WaitAfter(ctx, 0, match)
}

// WaitAfter is Wait without the first n events.
func (s *Server) WaitAfter(ctx context.Context, n int, match func(Event) bool) (Event, error) {
	for {
		s.log.mu.Lock()
		events, changed := s.log.events, s.log.changed
		s.log.mu.Unlock()
		for ; n < len(events); n++ {
			if match(events[n]) {
				return events[n], nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, fmt.Errorf("xdstest: no such event: %w; have %+v", ctx.Err(), events)
		}
	}
}

// WaitACK waits until the client has accepted a version of a type, as returned by Set.
func (s *Server) WaitACK(ctx context.Context, url, version string) error {
	_, err := s.Wait(ctx, func(e Event) bool {
		return e.Kind == ACK && e.TypeURL == url && e.Version == version
	})
	return err
}

// WaitNACK waits until the client has rejected a response of a type with a text that contains part.
func (s *Server) WaitNACK(ctx context.Context, url, part string) (Event, error) {
	return s.Wait(ctx, func(e Event) bool {
		return e.Kind == NACK && e.TypeURL == url && strings.Contains(e.Error, part)
	})
}
