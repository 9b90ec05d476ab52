package host

// KeyedPool is a Pool for streams that ask something of their connections, such as a server name. It
// goes when it has nothing left, unlike the pools in slots, of which a host has a handful at most.
type KeyedPool interface {
	Pool
	// Idle tells that no stream uses the pool or waits for it.
	Idle() bool
	// Retired tells that the pool takes no stream any more.
	Retired() bool
}

// MaxKeyedPools bounds the pools that a host has besides those in slots: what tells them apart may
// come from clients, as server names do.
//
// DIVERGES(pool-bound): Envoy has no bound but max_connection_pools.
const MaxKeyedPools = 1024

// KeyedPool returns the pool of a key, made by make if there is none. nil says that the host has too
// many, each in use; an idle one makes room for a new one. make is called under a lock.
func (h *Host) KeyedPool(key []byte, make func(key string) KeyedPool) KeyedPool {
	s := h.live()
	s.mu.Lock()
	if p, ok := s.keyed[string(key)].(KeyedPool); ok && !p.Retired() {
		s.mu.Unlock()
		return p
	}
	victim := s.evict()
	if len(s.keyed) >= MaxKeyedPools {
		s.mu.Unlock()
		return nil
	}
	if s.keyed == nil {
		s.keyed = map[string]Pool{}
	}
	p := make(string(key))
	s.keyed[string(key)] = p
	removed := s.removed
	s.mu.Unlock()
	if victim != nil {
		victim.Drain(true)
	}
	if removed {
		p.Drain(true)
	}
	return p
}

// evict takes an idle pool out if there are as many as there may be; the caller holds mu, and drains
// it afterwards.
func (s *state) evict() Pool {
	if len(s.keyed) < MaxKeyedPools {
		return nil
	}
	for key, p := range s.keyed {
		if k, ok := p.(KeyedPool); ok && k.Idle() {
			delete(s.keyed, key)
			return p
		}
	}
	return nil
}

// DropPool forgets a pool that has nothing left, unless another one has taken its place.
func (h *Host) DropPool(key string, p KeyedPool) {
	s := h.live()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keyed[key] == Pool(p) {
		delete(s.keyed, key)
	}
}

// EachPool visits the host's pools, outside locks.
func (h *Host) EachPool(f func(Pool)) {
	if s := h.state.Load(); s != nil {
		s.each(f)
	}
}

func (s *state) each(f func(Pool)) {
	for i := range s.pools {
		if p := s.pools[i].Load(); p != nil {
			f(*p)
		}
	}
	s.mu.Lock()
	keyed := make([]Pool, 0, len(s.keyed))
	for _, p := range s.keyed {
		keyed = append(keyed, p)
	}
	s.mu.Unlock()
	for _, p := range keyed {
		f(p)
	}
}
