package network

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/wire"
	"sidecar/wasmhost"
	"sidecar/wasmhost/abi"
)

// Filter is the plugin on one connection.
type Filter struct {
	// Set by NewNetworkFilter, never changed.
	factory Factory
	plugin  *wasmhost.Plugin // acquired; nil if the factory doesn't serve
	phases  abi.NetworkPhases
	c       *filter.Connection

	stream wasmhost.Stream

	// Owned by the connection's reader and its writer.
	down, up   buf.Buffer // what the plugin keeps back
	remoteDone bool       // the peer has ended its side
	bypass     bool       // set before anything is read; the plugin failed open or has failed
	failed     atomic.Bool

	// Owned by the VM's owner.
	shown   *buf.Buffer // the buffer of the callback that runs
	isUp    bool
	upEver  bool
	logging bool

	resumed atomic.Bool // proxy_continue_stream was called
	closing atomic.Bool // proxy_close_stream was
	ended   atomic.Bool
	waiting atomic.Bool // the reader waits on the socket for either
	wake    chan struct{}
}

var (
	_ filter.NewConnection = (*Filter)(nil)
	_ filter.UpstreamKnown = (*Filter)(nil)
	_ filter.ConnectionEnd = (*Filter)(nil)
	_ wire.ReadTap         = (*Filter)(nil)
	_ wire.WriteTap        = (*Filter)(nil)
	_ wasmhost.Owner       = (*Filter)(nil)
)

// OnNewConnection implements filter.NewConnection. A plugin that stops here is waited for until it goes
// on, or until there is data, which it is shown then.
func (f *Filter) OnNewConnection(t *stream.Turn) bool {
	verdict := f.factory.Missing()
	if f.plugin != nil {
		verdict = f.plugin.NewStream(f, &f.stream)
	}
	switch verdict {
	case wasmhost.Serve:
	case wasmhost.Bypass:
		f.bypass = true
		return true
	case wasmhost.Refuse:
		f.bypass = true
		return false
	}
	var act abi.Action
	if !f.run(t, func() (err error) {
		if err = f.stream.Create(); err == nil {
			act, err = f.stream.Guest().NewConnection(f, f.stream.ID())
		}
		return err
	}) {
		return f.passes()
	}
	if act != abi.ActionContinue && !f.resumed.Load() {
		f.await(t, false)
	}
	f.resumed.Store(false)
	return !f.closing.Load()
}

// run makes guest calls; false if they failed or couldn't be made, and then the plugin has no more part
// in the connection.
func (f *Filter) run(t *stream.Turn, calls func() error) bool {
	if f.failed.Load() {
		return false
	}
	if err := f.stream.Block(t, calls); err != nil {
		f.failed.Store(true)
		return false
	}
	return true
}

// passes tells whether a connection goes on without a plugin that has failed; if not, it is closed.
func (f *Filter) passes() bool {
	switch f.factory.Config().Policy {
	case wasmhost.FailOpen, wasmhost.FailOpenLegacy:
		return true
	case wasmhost.FailClosed, wasmhost.FailReload:
	}
	f.close()
	return false
}

// OnRead implements wire.ReadTap.
func (f *Filter) OnRead(data *buf.Buffer, end bool) (again bool) {
	f.remoteDone = f.remoteDone || end
	if f.bypass {
		return false
	}
	if !f.phases.Downstream {
		return f.phases.DownstreamClose && !end
	}
	var act abi.Action
	ok := false
	f.down.Append(data.Bytes())
	data.Reset()
	stream.Do(func(t *stream.Turn) {
		ok = f.run(t, func() (err error) {
			f.shown, f.isUp = &f.down, false
			act, err = f.stream.Guest().Data(false, f, f.stream.ID(), f.down.Len(), end)
			f.shown = nil
			return err
		})
		if ok && act != abi.ActionContinue && !f.resumed.Load() {
			f.await(t, end)
			act = abi.ActionStop
		}
	})
	if !ok {
		if f.passes() {
			data.Swap(&f.down)
			f.bypass = true
		}
		return false
	}
	if act == abi.ActionContinue || f.resumed.Swap(false) {
		data.Swap(&f.down)
	}
	return !end
}

// await waits for the plugin to go on or to close the connection, for more data, or for somebody who
// wakes the reader. end says that there is no more data.
func (f *Filter) await(t *stream.Turn, end bool) {
	t.End() // What the plugin has asked for is done first.
	f.waiting.Store(true)
	defer f.waiting.Store(false)
	for !f.resumed.Load() && !f.closing.Load() && !f.failed.Load() {
		var err error
		if end {
			if f.c.Wire.AwaitReset() {
				return
			}
			err = os.ErrDeadlineExceeded
		} else if err = f.c.Wire.Raw().Read(readable); err == nil {
			return
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		select {
		case <-f.wake: // Ours: the deadline was set to wake this wait.
			if f.c.Wire.SetReadDeadline(time.Time{}) != nil {
				return
			}
		default:
			return // Somebody else's, who finds it again when the reader reads.
		}
	}
}

// readable tells whether a socket has data, has ended or has failed.
func readable(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0
}

// poke ends the reader's wait.
func (f *Filter) poke() {
	if !f.waiting.Load() {
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
	_ = f.c.Wire.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // a closed connection wakes the reader too
}

// OnWrite implements wire.WriteTap.
func (f *Filter) OnWrite(data *buf.Buffer) (again bool) {
	if f.bypass || !f.phases.Upstream {
		return false
	}
	if f.up.Len() > 0 {
		f.up.Append(data.Bytes())
		data.Reset()
		data.Swap(&f.up)
	}
	var act abi.Action
	ok := false
	stream.Do(func(t *stream.Turn) {
		ok = f.run(t, func() (err error) {
			f.shown, f.isUp, f.upEver = data, true, true
			act, err = f.stream.Guest().Data(true, f, f.stream.ID(), data.Len(), false)
			f.shown = nil
			return err
		})
	})
	switch {
	case !ok:
		if !f.passes() {
			data.Reset()
		}
		return false
	case act != abi.ActionContinue:
		f.up.Append(data.Bytes())
		data.Reset()
	}
	return true
}

// OnUpstreamKnown implements filter.UpstreamKnown.
func (f *Filter) OnUpstreamKnown(*stream.Info) { f.upKnown() }

func (f *Filter) upKnown() { f.upEver = true }

// OnConnectionEnd implements filter.ConnectionEnd.
// DIVERGES(wasm-network-end): on_upstream_connection_close comes here, not when the upstream has ended
// its side.
func (f *Filter) OnConnectionEnd(*stream.Info) {
	if f.plugin == nil {
		return
	}
	defer f.plugin.Release()
	if f.stream.VM() == nil {
		return
	}
	stream.Do(func(t *stream.Turn) {
		f.run(t, func() error {
			g, id := f.stream.Guest(), f.stream.ID()
			if f.upEver {
				if err := g.ConnectionClosed(true, f, id, abi.UnknownPeer); err != nil {
					return err
				}
			}
			peer := abi.LocalPeer
			if f.remoteDone {
				peer = abi.RemotePeer
			}
			if err := g.ConnectionClosed(false, f, id, peer); err != nil {
				return err
			}
			f.logging = true
			err := f.stream.Last()
			f.logging = false
			return err
		})
		f.ended.Store(true)
		f.stream.Leave(t)
	})
	f.down.Reset()
	f.up.Reset()
}

func (f *Filter) close() {
	f.closing.Store(true)
	f.c.Wire.CloseAfterFlush()
	f.poke()
}
