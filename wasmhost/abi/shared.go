package abi

import (
	"bytes"
	"sync"
)

// Shared holds what plugins share: data and queues by VM id. One for the process; safe for
// concurrent use. A VM id's part lives as long as a user of it (Use).
type Shared struct {
	// Set by NewShared, never changed.
	maxBytes int

	mu     sync.Mutex // guards below; nothing is called while it is held
	spaces map[string]*space
	queues map[uint32]*queue
	token  uint32
}

// space is what one VM id has.
type space struct {
	users  int
	data   map[string]sharedValue
	cas    uint32
	bytes  int
	queues map[string]*queue
}

type sharedValue struct {
	data []byte
	cas  uint32
}

type queue struct {
	token uint32
	space *space
	items [][]byte
	owner Host // whose root is told; the last VM that registered the name
}

// NewShared makes an empty store, of at most maxBytes for each VM id: Envoy has no bound.
func NewShared(maxBytes int) *Shared {
	return &Shared{maxBytes: maxBytes, spaces: map[string]*space{}, queues: map[uint32]*queue{}}
}

// Use keeps the data of a VM id until as many Release calls.
func (s *Shared) Use(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.spaces[id]
	if sp == nil {
		sp = &space{data: map[string]sharedValue{}, queues: map[string]*queue{}}
		s.spaces[id] = sp
	}
	sp.users++
}

// Release ends a Use; the last one drops the data and the queues.
func (s *Shared) Release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.spaces[id]
	if sp.users--; sp.users > 0 {
		return
	}
	for _, q := range sp.queues {
		delete(s.queues, q.token)
	}
	delete(s.spaces, id)
}

// Forget stops telling a VM of its queues, which keep their data.
func (s *Shared) Forget(h Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		if q.owner == h {
			q.owner = nil
		}
	}
}

func (s *Shared) get(id, key string) (data []byte, cas uint32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.spaces[id].data[key]
	return v.data, v.cas, ok // Values are replaced, never changed.
}

// set stores a value; a nil one deletes the key. cas 0 is unconditional, and so is a new key.
func (s *Shared) set(id, key string, value []byte, cas uint32) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.spaces[id]
	old, ok := sp.data[key]
	if ok && cas != 0 && cas != old.cas {
		return CASMismatch
	}
	if value == nil {
		if ok {
			sp.bytes -= entryBytes(key, old.data)
			delete(sp.data, key)
		}
		return OK
	}
	size := entryBytes(key, value)
	if ok {
		size -= entryBytes(key, old.data)
	}
	if sp.bytes+size > s.maxBytes {
		return InternalFailure
	}
	sp.bytes += size
	sp.cas++
	sp.data[key] = sharedValue{value, sp.cas}
	return OK
}

// remove deletes a key: NotFound without it, CASMismatch if it is not at cas, 0 being any.
func (s *Shared) remove(id, key string, cas uint32) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.spaces[id]
	old, ok := sp.data[key]
	switch {
	case !ok:
		return NotFound
	case cas != 0 && cas != old.cas:
		return CASMismatch
	}
	sp.bytes -= entryBytes(key, old.data)
	delete(sp.data, key)
	return OK
}

// entryBytes counts what an entry costs, map and headers included.
func entryBytes(key string, value []byte) int { return len(key) + len(value) + 96 }

func (s *Shared) register(id, name string, owner Host) (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.spaces[id]
	q := sp.queues[name]
	if q == nil {
		if sp.bytes+entryBytes(name, nil) > s.maxBytes {
			return 0, false
		}
		sp.bytes += entryBytes(name, nil)
		s.token++
		q = &queue{token: s.token, space: sp}
		sp.queues[name], s.queues[q.token] = q, q
	}
	q.owner = owner
	return q.token, true
}

func (s *Shared) resolve(id, name string) (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.spaces[id]
	if sp == nil || sp.queues[name] == nil {
		return 0, false
	}
	return sp.queues[name].token, true
}

func (s *Shared) enqueue(token uint32, data []byte) (owner Host, s2 Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[token]
	if q == nil {
		return nil, NotFound
	}
	if q.space.bytes+entryBytes("", data) > s.maxBytes {
		return nil, InternalFailure
	}
	q.space.bytes += entryBytes("", data)
	q.items = append(q.items, data)
	return q.owner, OK
}

func (s *Shared) dequeue(token uint32) ([]byte, Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[token]
	if q == nil {
		return nil, NotFound
	}
	if len(q.items) == 0 {
		return nil, Empty
	}
	item := q.items[0]
	q.space.bytes -= entryBytes("", item)
	q.items[0] = nil
	if q.items = q.items[1:]; len(q.items) == 0 {
		q.items = nil
	}
	return item, OK
}

func getSharedData(c call) (Status, error) {
	key, ok := c.text(0)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	data, cas, ok := c.vm.Host.Shared().get(c.vm.Host.VMID(), key)
	if !ok {
		return NotFound, nil
	}
	if s, err := c.result(2, data); err != nil || s != OK {
		return s, err
	}
	return c.word(4, cas)
}

// setSharedData with a null value deletes, which is what SDKs mean by it; the ABI has no other way.
// DIVERGES(wasm-shared-data): Envoy keeps an empty value.
func setSharedData(c call) (Status, error) {
	key, ok1 := c.bytes(0)
	value, ok2 := c.bytes(2)
	if !ok1 || !ok2 {
		return InvalidMemoryAccess, nil
	}
	var own []byte
	if c.a.U32(2) != 0 || len(value) > 0 {
		own = append([]byte{}, value...)
	}
	s := c.vm.Host.Shared().set(c.vm.Host.VMID(), string(key), own, c.a.U32(4))
	if s == InternalFailure {
		c.vm.warnOnce("set_shared_data: the limit of shared data is reached")
	}
	return s, nil
}

func registerQueue(c call) (Status, error) {
	name, ok := c.bytes(0)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	token, ok := c.vm.Host.Shared().register(c.vm.Host.VMID(), string(name), c.vm.Host)
	if !ok {
		c.vm.warnOnce("register_shared_queue: the limit of shared data is reached")
		return InternalFailure, nil
	}
	return c.word(2, token)
}

func resolveQueue(c call) (Status, error) {
	id, ok1 := c.text(0)
	name, ok2 := c.text(2)
	if !ok1 || !ok2 {
		return InvalidMemoryAccess, nil
	}
	if id == "" {
		id = c.vm.Host.VMID()
	}
	token, ok := c.vm.Host.Shared().resolve(id, name)
	if !ok {
		return NotFound, nil
	}
	return c.word(4, token)
}

func enqueue(c call) (Status, error) {
	data, ok := c.bytes(1)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	token := c.a.U32(0)
	owner, s := c.vm.Host.Shared().enqueue(token, bytes.Clone(data))
	if s == InternalFailure {
		c.vm.warnOnce("enqueue_shared_queue: the queue is full")
	}
	if owner != nil {
		owner.QueueReady(token)
	}
	return s, nil
}

func dequeue(c call) (Status, error) {
	data, s := c.vm.Host.Shared().dequeue(c.a.U32(0))
	if s != OK {
		return s, nil
	}
	return c.result(1, data)
}
