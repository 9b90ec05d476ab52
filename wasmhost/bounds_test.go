package wasmhost

import (
	"testing"
	"time"

	"sidecar/api/stream"
	"sidecar/wasmhost/abi"
)

// TestLines: a plugin's lines are let through up to a rate, and what was not is counted.
func TestLines(t *testing.T) {
	t.Parallel()
	var l lines
	now := time.Unix(1, 0)
	passed := func(n int) (ok int, dropped uint64) {
		for range n {
			yes, d := l.take(now)
			if yes {
				ok++
			}
			dropped += d
		}
		return ok, dropped
	}
	if ok, _ := passed(5000); ok != lineRate {
		t.Errorf("%d lines at once", ok)
	}
	now = now.Add(100 * time.Millisecond)
	if ok, dropped := passed(500); ok != lineRate/10 || dropped != 4000 {
		t.Errorf("%d lines after a tenth of a second, %d dropped", ok, dropped)
	}
	now = now.Add(time.Hour)
	if ok, _ := passed(5000); ok != lineRate {
		t.Errorf("%d lines after an hour", ok)
	}
}

// TestCallBounds: a VM's call-outs are bounded in number and in what they hold, and what is over gives
// back what it had.
func TestCallBounds(t *testing.T) {
	t.Parallel()
	v := &VM{calls: map[uint32]*callout{}}
	var all []*callout
	for range maxCalls {
		c, _, err := v.newCall(nil, httpToken, 1)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if _, _, err := v.newCall(nil, unaryToken, 1); err == nil {
		t.Error("one too many")
	}
	for _, c := range all {
		v.dropCall(c)
	}
	if v.callBytes != 0 || len(v.calls) != 0 {
		t.Errorf("%d bytes and %d call-outs are left", v.callBytes, len(v.calls))
	}
	if _, _, err := v.newCall(nil, streamToken, maxCallBytes+1); err == nil {
		t.Error("too large")
	}
	c, _, err := v.newCall(nil, streamToken, maxCallBytes)
	if err != nil || c.token&kindMask != streamToken {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestGRPCEvents has what comes of a call go to its guest as Envoy's handlers let it.
func TestGRPCEvents(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		events []GRPCEvent
		want   []GRPCKind
		status int
	}{
		"answered":      {[]GRPCEvent{{Kind: GRPCInitial}, {Kind: GRPCMessage, Message: []byte("m")}, {Kind: GRPCTrailing}, {Kind: GRPCClosed}}, []GRPCKind{GRPCMessage}, 0},
		"empty message": {[]GRPCEvent{{Kind: GRPCMessage}, {Kind: GRPCClosed}}, []GRPCKind{GRPCMessage}, 0},
		"no message":    {[]GRPCEvent{{Kind: GRPCInitial}, {Kind: GRPCClosed}}, []GRPCKind{GRPCClosed}, 13},
		"failed":        {[]GRPCEvent{{Kind: GRPCMessage, Message: []byte("m")}, {Kind: GRPCClosed, Status: 5}}, []GRPCKind{GRPCClosed}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := &VM{calls: map[uint32]*callout{}}
			call, _, err := v.newCall(nil, unaryToken, 0)
			if err != nil {
				t.Fatal(err)
			}
			s := &Stream{vm: v, owner: silent{}}
			call.stream = s
			for _, e := range c.events {
				stream.Do(func(t *stream.Turn) { v.grpcEvent(t, call, e) })
			}
			var got []GRPCKind
			for _, a := range s.inbox {
				got = append(got, a.grpc.Kind)
				if a.grpc.Kind == GRPCClosed && a.grpc.Status != c.status {
					t.Errorf("status %d", a.grpc.Status)
				}
			}
			if len(got) != len(c.want) || got[0] != c.want[0] {
				t.Errorf("%v, want %v", got, c.want)
			}
			if len(v.calls) != 0 {
				t.Error("the call is still in the books")
			}
			if _, st := v.grpcOf(call.token, true); st != abi.NotFound {
				t.Errorf("cancelled afterwards: %v", st)
			}
		})
	}
}

// silent is an Owner that does nothing.
type silent struct{ Owner }

func (silent) Post(*stream.Turn, func(*stream.Turn)) {}

func (silent) Answered(*stream.Turn) {}
