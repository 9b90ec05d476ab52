package tlsctx

import (
	"container/list"
	"crypto/tls"
	"sync"
)

// sessions keeps those that servers gave, for the connections to come: as many as max_session_keys
// says, and of each server name the newest is taken first. It implements tls.ClientSessionCache. That
// of crypto/tls keeps one for each name, so that of connections made at once only one could resume.
type sessions struct {
	max int

	mu    sync.Mutex                 // guards below
	all   list.List                  // of session, the oldest first
	named map[string][]*list.Element // the oldest first
}

type session struct {
	name string
	cs   *tls.ClientSessionState
}

// Get implements tls.ClientSessionCache. A session of TLS 1.3 is taken out by Put(name, nil), which
// follows at once.
func (s *sessions) Get(name string) (*tls.ClientSessionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.named[name]
	if len(in) == 0 {
		return nil, false
	}
	x, ok := in[len(in)-1].Value.(session)
	return x.cs, ok
}

// Put implements tls.ClientSessionCache.
func (s *sessions) Put(name string, cs *tls.ClientSessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.named[name]
	if cs == nil {
		if n := len(in); n > 0 {
			s.all.Remove(in[n-1])
			s.keep(name, in[:n-1])
		}
		return
	}
	if s.all.Len() >= s.max {
		oldest, _ := s.all.Remove(s.all.Front()).(session)
		s.keep(oldest.name, s.named[oldest.name][1:])
		in = s.named[name]
	}
	if s.named == nil {
		s.named = map[string][]*list.Element{}
	}
	s.named[name] = append(in, s.all.PushBack(session{name, cs}))
}

func (s *sessions) keep(name string, in []*list.Element) {
	if len(in) == 0 {
		delete(s.named, name)
		return
	}
	s.named[name] = in
}
