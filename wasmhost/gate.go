package wasmhost

import "sync"

// gate bounds how many guests run at once: each holds an OS thread, and thousands of them end the
// process. A plugin gets half, so that one can't keep the others out. A VM that gets no place waits in
// a FIFO; it is handed a place by whoever leaves.
type gate struct {
	mu       sync.Mutex // guards below and Plugin.running; a leaf
	places   int
	each     int // of one plugin
	running  int
	waitlist []*VM
}

func newGate(places int) *gate {
	places = max(2, places)
	return &gate{places: places, each: max(1, places/2)}
}

// enter takes a place for v, or puts it on the list.
func (g *gate) enter(v *VM) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.take(v) {
		return true
	}
	g.waitlist = append(g.waitlist, v)
	return false
}

// tryEnter takes a place for v if there is one.
func (g *gate) tryEnter(v *VM) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.take(v)
}

func (g *gate) take(v *VM) bool {
	if g.running >= g.places || v.plugin.running >= g.each {
		return false
	}
	g.running++
	v.plugin.running++
	return true
}

// leave gives v's place back and returns the VM that has one now, if any was waiting for it. With
// again, v wants to go on: it keeps its place when nobody waits, or goes to the end of the list.
func (g *gate) leave(v *VM, again bool) (next *VM) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if again && len(g.waitlist) == 0 {
		return v
	}
	g.running--
	v.plugin.running--
	if again {
		g.waitlist = append(g.waitlist, v)
	}
	for i, w := range g.waitlist {
		if w.plugin.running < g.each {
			copy(g.waitlist[i:], g.waitlist[i+1:])
			g.waitlist[len(g.waitlist)-1] = nil
			g.waitlist = g.waitlist[:len(g.waitlist)-1]
			g.running++
			w.plugin.running++
			return w
		}
	}
	return nil
}
