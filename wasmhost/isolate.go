package wasmhost

import (
	"errors"
	"sync"
	"sync/atomic"

	"sidecar/api/stream"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/internal/engine"
)

// maxClones bounds the instances of one plugin with isolation: each is a mapping of 4 GiB of address
// space, and the kernel's default allows 65,530 mappings.
const maxClones = 4096

// keptClones is how many instances wait for streams to come.
const keptClones = 64

// isolation has a plugin's streams find VMs as they were after on_configure: each stream has one for
// itself, which is taken back to the template's snapshot when it ends.
type isolation struct {
	ids atomic.Uint32 // of stream contexts, unique over all clones

	mu    sync.Mutex // guards below
	image *image     // of the template that serves; nil: none does
	free  []*VM
	live  int
}

// image is what a clone starts from: the guest's state, and what the host keeps of it.
type image struct {
	snap  *engine.Snapshot
	state abi.State
}

// errStreamOver takes a clone back after its stream's last calls.
var errStreamOver = errors.New("the stream is over")

// take snapshots the template, which the caller owns.
func (v *VM) take() error {
	snap, err := v.abi.Snapshot()
	if err != nil {
		return err
	}
	v.image = &image{snap, v.abi.State()}
	return nil
}

// retake snapshots a template again after a callback of its root, if that has changed anything.
func (v *VM) retake() {
	if v.image == nil || !v.abi.Differs(v.image.snap) {
		return
	}
	old := v.image
	if err := v.take(); err != nil {
		v.plugin.host.opts.Log.Error("wasm: no snapshot: streams go on from the one before",
			"plugin", v.plugin.config.Name, "error", err)
		return
	}
	iso := v.plugin.iso
	iso.mu.Lock()
	if iso.image == old {
		iso.image = v.image
	}
	iso.mu.Unlock()
	old.snap.Release() // The template's hold; clones have theirs.
}

// serveFrom makes v the template.
func (iso *isolation) serveFrom(v *VM) {
	iso.mu.Lock()
	iso.image = v.image
	iso.mu.Unlock()
}

// gone is told of a template that has ended: new streams find none, unless another serves.
func (iso *isolation) gone(img *image) {
	iso.mu.Lock()
	if iso.image == img {
		iso.image = nil
	}
	iso.mu.Unlock()
}

// clone gives a new stream a VM of its own; nil if there are too many, or none can be made.
func (p *Plugin) clone() *VM {
	iso := p.iso
	iso.mu.Lock()
	img := iso.image
	if img == nil {
		iso.mu.Unlock()
		return nil
	}
	img.snap.Hold()
	var v *VM
	if n := len(iso.free); n > 0 {
		v = iso.free[n-1]
		iso.free[n-1] = nil
		iso.free = iso.free[:n-1]
	} else if iso.live >= maxClones {
		iso.mu.Unlock()
		img.snap.Release()
		p.stats.overloads.Inc()
		return nil
	} else {
		iso.live++
	}
	iso.mu.Unlock()
	var err error
	if v == nil {
		v, err = newClone(p)
	}
	if v != nil && v.image != img {
		if err = v.abi.Adopt(img.snap); err == nil {
			if v.image != nil {
				v.image.snap.Release()
			}
			v.image = img
			img.snap.Hold()
		}
	}
	img.snap.Release()
	if err != nil {
		p.host.opts.Log.Error("wasm: no VM for a stream", "plugin", p.config.Name, "error", err)
		if v == nil {
			iso.forget()
			return nil
		}
		v.kill(err)
		return nil
	}
	v.abi.SetState(img.state)
	v.lastID = rootContext + iso.ids.Add(1) - 1
	v.held = true
	p.refs.Add(1)
	return v
}

func newClone(p *Plugin) (*VM, error) {
	v, err := newVM(p)
	if err != nil {
		return nil, err
	}
	p.stats.created.Inc()
	p.stats.active.Inc()
	v.isClone, v.owned = true, false
	v.load.Store(0)
	v.abi.VMConfig = p.config.vmConfig
	v.abi.Contexts[rootContext] = &v.root
	v.abi.SetDeadline(p.config.Limits.StreamDeadline)
	return v, nil
}

func (iso *isolation) forget() {
	iso.mu.Lock()
	iso.live--
	iso.mu.Unlock()
}

// recycle takes a clone back in place of Leave, after its stream has ended.
func (v *VM) recycle(t *stream.Turn) {
	v.settle(t)
	v.mu.Lock()
	calls, queue := v.calls, v.queue
	v.queue = nil
	if len(calls) > 0 {
		v.calls, v.callBytes = map[uint32]*callout{}, 0
	} else {
		calls = nil
	}
	v.mu.Unlock()
	for _, c := range calls {
		c.abandon()
	}
	for _, w := range queue {
		t.Later(w.Failed)
	}
	v.outcome = outcome{}
	err := v.abi.Restore(v.image.snap)
	if err != nil { // It has grown, most likely.
		v.plugin.stats.discarded.Inc()
	}
	next := v.plugin.host.gate.leave(v, false)
	if err != nil {
		v.kill(errVMClosed)
	} else {
		v.mu.Lock()
		v.owned = false
		v.load.Add(-1)
		v.mu.Unlock()
		v.giveBack()
	}
	if next != nil {
		next.granted()
	}
}

// giveBack keeps a clone that is as it was for another stream.
func (v *VM) giveBack() {
	iso := v.plugin.iso
	iso.mu.Lock()
	keep := len(iso.free) < keptClones && iso.image != nil
	v.held = false
	if keep {
		iso.free = append(iso.free, v)
	}
	iso.mu.Unlock()
	if !keep {
		v.kill(errVMClosed)
	}
	v.plugin.unref()
}

// goneClone is the end of a clone that was killed.
func (v *VM) goneClone() {
	if v.image != nil {
		v.image.snap.Release()
		v.image = nil
	}
	v.plugin.iso.forget()
	if v.held {
		v.held = false
		v.plugin.unref()
	}
}

// end frees what waits for streams.
func (iso *isolation) end() {
	iso.mu.Lock()
	free := iso.free
	iso.free, iso.image = nil, nil
	iso.mu.Unlock()
	for _, v := range free {
		v.kill(errVMClosed)
	}
}

// template is the VM that has the root context of a clone, if one serves.
func (p *Plugin) template() *VM {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.vms) == 0 {
		return nil
	}
	return p.vms[0]
}
