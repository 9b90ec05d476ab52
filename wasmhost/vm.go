package wasmhost

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/stream"
	"sidecar/internal/task"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/internal/engine"
)

// rootContext is the guest's id of the plugin's root; streams count on from it.
const rootContext = 1

// VM is one instance of a plugin's code. Whoever owns it, one at a time, may call the guest.
type VM struct {
	// Set by newVM, never changed.
	plugin *Plugin
	abi    *abi.VM
	gone   chan struct{} // closed when the instance is freed

	// Owned by the VM's owner.
	turn     *stream.Turn
	root     root
	lastID   uint32
	deferred []func(*stream.Turn) // what guest calls want done outside
	tick     time.Duration
	newTick  bool
	outcome  outcome
	remarks  map[string]bool // that were made of calls without effect
	ending   bool            // on_done was false; proxy_done ends the wait
	endTimer *time.Timer
	large    bool // the memory was found to be large

	isClone bool   // for one stream at a time; set by its maker
	held    bool   // a clone that a stream has; guarded by isolation.mu where it is shared
	image   *image // that a template was snapshotted to, or that a clone has adopted

	replacing bool // guarded by Plugin.mu

	load   atomic.Int32 // owner and queue; for Plugin.pick
	memory atomic.Int64 // bytes, as of the last callback
	ready  atomic.Int32 // notifications of queues that wait

	mu      sync.Mutex // guards below; taken before gate.mu, after nothing
	owned   bool
	queue   []Waiter
	fault   error
	streams map[*Stream]struct{}
	calls   map[uint32]*callout
	token   uint32
	timer   *time.Timer
	// callBytes is what the call-outs hold.
	callBytes int
	bound     uint64 // streams ever
	// draining: it ends with its last stream. drained: Plugin.drains counts it.
	draining, drained bool
}

// Waiter is told what became of its wait for a VM. The methods are called with no stream entered.
type Waiter interface {
	// Ready: the VM is the waiter's, which must lead to one Leave.
	Ready(t *stream.Turn)
	// Failed: the VM has failed, and there is nothing to leave.
	Failed(t *stream.Turn)
}

// Entry is the outcome of an attempt to enter a VM.
type Entry uint8

// The outcomes.
const (
	// Entered: the VM is the caller's until it leaves.
	Entered Entry = iota
	// Queued: the Waiter will be told.
	Queued
	// Overloaded: too many wait already. The Waiter is not told of anything.
	Overloaded
	// Dead: the VM has failed. The Waiter is not told of anything.
	Dead
)

var errVMClosed = errors.New("the VM was closed")

func newVM(p *Plugin) (*VM, error) {
	v := &VM{
		plugin: p, gone: make(chan struct{}), owned: true, lastID: rootContext,
		streams: map[*Stream]struct{}{}, calls: map[uint32]*callout{},
	}
	v.root.vm = v
	v.load.Store(1)
	var err error
	v.abi, err = p.module.NewVM(v, engine.Limits{
		MemoryBytes: p.config.Limits.MemoryBytes, Deadline: p.config.Limits.StartDeadline,
	})
	if err != nil {
		return nil, err
	}
	p.host.mu.Lock()
	p.host.live[v] = struct{}{}
	p.host.mu.Unlock()
	return v, nil
}

// start runs what comes before the first stream, in Envoy's order. The VM is owned by its maker.
func (v *VM) start(ctx context.Context, t *stream.Turn) error {
	v.turn = t
	v.abi.VMConfig = v.plugin.config.vmConfig
	v.abi.Contexts[rootContext] = &v.root
	steps := []func() error{
		v.abi.Initialize,
		func() error { return v.abi.ContextCreate(&v.root, rootContext, 0) },
		func() error {
			ok, err := v.abi.VMStart(&v.root, rootContext)
			return refusal(ok, err, errVMStart)
		},
		func() error {
			ok, err := v.abi.Configure(&v.root, rootContext, v.plugin.config.configuration)
			return refusal(ok, err, errConfigure)
		},
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	v.abi.SetDeadline(v.plugin.config.Limits.StreamDeadline)
	if v.plugin.iso != nil {
		if err := v.take(); err != nil {
			return err
		}
	}
	v.settle(t) //nolint:contextcheck // a replacement that it begins goes on by itself
	v.mu.Lock()
	// What queued up meanwhile (answers to call-outs) needs a place at the gate, like anyone.
	v.owned = len(v.queue) > 0
	again := v.owned && v.plugin.host.gate.enter(v)
	v.load.Add(-1)
	v.mu.Unlock()
	if again {
		v.granted()
	}
	return nil
}

func refusal(ok bool, err, refused error) error {
	if err == nil && !ok {
		return refused
	}
	return err
}

// Enter tries to own the VM for a stream or a job.
func (v *VM) Enter(t *stream.Turn, w Waiter) Entry {
	return v.enter(t, w, v.plugin.host.opts.QueueLimit)
}

func (v *VM) enter(t *stream.Turn, w Waiter, limit int) Entry {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.fault != nil:
		return Dead
	case v.owned && len(v.queue) >= limit:
		v.plugin.stats.overloads.Inc()
		return Overloaded
	case !v.owned:
		v.owned = true
		v.load.Add(1)
		if v.plugin.host.gate.enter(v) {
			v.turn = t
			return Entered
		}
		v.load.Add(-1) // The waiter counts instead.
	}
	v.queue = append(v.queue, w)
	v.load.Add(1)
	return Queued
}

// TryEnter is Enter for who wouldn't wait: false if the VM is busy or has failed.
func (v *VM) TryEnter(t *stream.Turn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fault != nil || v.owned || !v.plugin.host.gate.tryEnter(v) {
		return false
	}
	v.owned, v.turn = true, t
	v.load.Add(1)
	return true
}

// Dead tells that the VM has failed or was closed.
func (v *VM) Dead() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fault != nil
}

// Own is what a Waiter that got Ready calls before it uses the VM, on the goroutine that does.
func (v *VM) Own(t *stream.Turn) { v.turn = t }

// Cancel takes a waiter out of the queue. False: it got the VM, or will hear that it has failed.
func (v *VM) Cancel(w Waiter) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, q := range v.queue {
		if q == w {
			v.queue = append(v.queue[:i], v.queue[i+1:]...)
			v.load.Add(-1)
			return true
		}
	}
	return false
}

// Leave gives the VM up: what the guest asked for is done, and the next in the queue gets it.
func (v *VM) Leave(t *stream.Turn) {
	v.settle(t)
	v.mu.Lock()
	again := len(v.queue) > 0
	v.owned = again
	v.load.Add(-1)
	v.mu.Unlock()
	if next := v.plugin.host.gate.leave(v, again); next != nil {
		next.granted()
	}
}

// granted passes a VM that has a place at the gate to the first that waits for it.
func (v *VM) granted() {
	for {
		v.mu.Lock()
		if len(v.queue) > 0 {
			w := v.queue[0]
			copy(v.queue, v.queue[1:])
			v.queue[len(v.queue)-1] = nil
			v.queue = v.queue[:len(v.queue)-1]
			v.mu.Unlock()
			// Its count in load is the owner's now. It runs apart from the one that leaves: that one's
			// connection must not wait for another's guest, which may take till its deadline.
			task.Go("wasm waiter", func() { stream.Do(w.Ready) }, v.plugin.host.panicked)
			return
		}
		v.owned = false // All were cancelled.
		v.mu.Unlock()
		if v = v.plugin.host.gate.leave(v, false); v == nil {
			return
		}
	}
}

// settle does what the guest calls since the VM was entered have left to do outside the guest.
func (v *VM) settle(t *stream.Turn) {
	v.abi.Idle()
	v.grewTo(int64(v.abi.MemoryBytes()))
	for i, f := range v.deferred {
		v.deferred[i] = nil
		t.Later(f)
	}
	v.deferred = v.deferred[:0]
	if v.newTick {
		v.newTick = false
		v.armTick()
	}
	v.turn = nil
}

// Defer has f run, with no stream entered, after the VM is left. Called by its owner.
func (v *VM) Defer(f func(*stream.Turn)) { v.deferred = append(v.deferred, f) }

// Fail ends the VM after a guest call's error, in place of Leave. Everyone who waits for it or has a
// stream in it is told.
func (v *VM) Fail(t *stream.Turn, err error) {
	v.plugin.stats.traps.Inc()
	var trap *engine.Trap
	if errors.As(err, &trap) && trap.Reason == engine.DeadlineOver {
		v.plugin.stats.deadlines.Inc()
	}
	v.plugin.failed(v, err)
	v.settle(t)
	queue, streams := v.kill(err)
	if next := v.plugin.host.gate.leave(v, false); next != nil {
		next.granted()
	}
	// On a goroutine of its own: there can be thousands, and the one here may be a connection's reader.
	task.Go("wasm vm failure", func() {
		stream.Do(func(t *stream.Turn) {
			for _, w := range queue {
				w.Failed(t)
			}
			for _, s := range streams {
				s.owner.VMFailed(t, v)
			}
		})
	}, v.plugin.host.panicked)
}

// kill frees the instance and returns who has to be told.
func (v *VM) kill(err error) (queue []Waiter, streams []*Stream) {
	v.mu.Lock()
	v.fault = err
	v.owned = true // For good.
	queue, v.queue = v.queue, nil
	for s := range v.streams {
		streams = append(streams, s)
	}
	calls := v.calls
	v.calls = nil
	timer := v.timer
	drained := v.drained
	v.drained = false
	v.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	for _, c := range calls {
		c.abandon()
	}
	h := v.plugin.host
	h.shared.Forget(v)
	v.abi.Close()
	h.mu.Lock()
	delete(h.live, v)
	h.mu.Unlock()
	v.plugin.stats.active.Dec()
	switch {
	case v.isClone:
		v.goneClone()
	case v.image != nil:
		v.plugin.iso.gone(v.image)
		v.image.snap.Release()
	}
	close(v.gone)
	if drained {
		v.plugin.drains.Done()
	}
	return queue, streams
}

// discard frees a VM that didn't start.
func (v *VM) discard(err error) {
	queue, _ := v.kill(err)
	stream.Do(func(t *stream.Turn) {
		for _, w := range queue {
			w.Failed(t)
		}
	})
}

// Do runs a job in the VM: at once if it is free, else when its turn comes. A job that can't be queued
// is dropped, and the log says so.
func (v *VM) Do(t *stream.Turn, what string, run func() error) {
	j := &job{v: v, run: run}
	switch v.Enter(t, j) {
	case Entered:
		j.do(t)
	case Overloaded:
		v.plugin.host.opts.Log.Error("wasm: dropped, as too much waits for the VM",
			"plugin", v.plugin.config.Name, "what", what)
	case Queued, Dead:
	}
}

// must is Do for what may not be dropped: the end of streams, of which there is one each, and of the VM.
func (v *VM) must(t *stream.Turn, run func() error) {
	j := &job{v: v, run: run}
	if v.enter(t, j, math.MaxInt) == Entered {
		j.do(t)
	}
}

// job is a Waiter that is no stream.
type job struct {
	v   *VM
	run func() error
}

// Ready runs the job.
func (j *job) Ready(t *stream.Turn) {
	j.v.Own(t)
	j.do(t)
}

// Failed drops the job with its VM.
func (j *job) Failed(*stream.Turn) {}

func (j *job) do(t *stream.Turn) { j.v.conclude(t, j.run()) }

// conclude gives the VM up after guest calls that ended with err.
func (v *VM) conclude(t *stream.Turn, err error) {
	switch {
	case err == nil:
		if v.image != nil && !v.isClone {
			v.retake()
		}
		v.Leave(t)
	case errors.Is(err, errStreamOver):
		v.recycle(t)
	case errors.Is(err, errVMClosed):
		v.close(t)
	default:
		v.Fail(t, err)
	}
}

// armTick starts, changes or stops the timer of on_tick; the period counts from the end of a tick.
func (v *VM) armTick() {
	period := v.tick
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.timer != nil {
		v.timer.Stop()
		v.timer = nil
	}
	if period <= 0 || v.fault != nil {
		return
	}
	v.timer = time.AfterFunc(period, func() { task.Go("wasm tick", v.onTick, v.plugin.host.panicked) })
}

func (v *VM) onTick() {
	stream.Do(func(t *stream.Turn) {
		v.Do(t, "on_tick", func() error {
			if v.tick == 0 {
				return nil
			}
			v.newTick = true
			return v.abi.Tick(&v.root, rootContext)
		})
	})
}

// shutDown runs on_done and on_delete of the root, after what is queued, and frees the VM. Nobody
// enters it any more but jobs.
func (v *VM) shutDown() {
	stream.Do(func(t *stream.Turn) {
		v.must(t, func() error {
			ok, err := v.abi.Done(&v.root, rootContext)
			if err != nil {
				return err
			}
			if !ok {
				v.ending = true
				v.endTimer = time.AfterFunc(max(v.plugin.config.Limits.StartDeadline, time.Second), func() {
					task.Go("wasm end", func() { stream.Do(v.end) }, v.plugin.host.panicked)
				})
				return nil
			}
			return v.delete()
		})
	})
}

// end goes on with a shutdown that waited for proxy_done.
func (v *VM) end(t *stream.Turn) {
	v.must(t, func() error {
		if !v.ending {
			return nil
		}
		v.ending = false
		v.endTimer.Stop()
		return v.delete()
	})
}

// delete is the last call into the guest; the job that it runs in then closes the VM.
func (v *VM) delete() error {
	if err := v.abi.Delete(&v.root, rootContext); err != nil {
		return err
	}
	return errVMClosed
}

// close frees the VM in place of Leave, after its root is deleted.
func (v *VM) close(t *stream.Turn) {
	v.settle(t)
	queue, _ := v.kill(errVMClosed)
	if next := v.plugin.host.gate.leave(v, false); next != nil {
		next.granted()
	}
	for _, w := range queue {
		t.Later(w.Failed)
	}
}
