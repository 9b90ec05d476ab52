package abi

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
	"unicode/utf16"

	"sidecar/wasmhost/internal/engine"
)

func log(c call) (Status, error) {
	level := LogLevel(c.a.U32(0))
	if level > LogCritical {
		return BadArgument, nil
	}
	message, ok := c.bytes(1)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	if level >= c.vm.Host.LogLevel() {
		c.vm.Host.Log(level, clipLine(message))
	}
	return OK, nil
}

func getLogLevel(c call) (Status, error) { return c.word(0, uint32(c.vm.Host.LogLevel())) }

func getStatus(c call) (Status, error) {
	code, message := c.vm.Host.Outcome()
	if !c.setWord(0, code) {
		return InvalidMemoryAccess, nil
	}
	return c.resultText(1, message)
}

func getProperty(c call) (Status, error) {
	path, ok := c.text(0)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	if c.vm.effective == nil {
		return NotFound, nil
	}
	value, s := c.vm.effective.AppendProperty(c.vm.scratch[:0], path)
	c.vm.scratch = value[:0]
	if s != OK {
		return s, nil
	}
	return c.result(2, value)
}

func setProperty(c call) (Status, error) {
	path, ok := c.text(0)
	value, ok2 := c.bytes(2)
	if !ok || !ok2 {
		return InvalidMemoryAccess, nil
	}
	if c.vm.effective == nil {
		return NotFound, nil
	}
	if len(path) > maxName || len(value) > maxValue {
		c.vm.warnOnce("set_property: the path or the value is too long")
		return InternalFailure, nil
	}
	return c.vm.effective.SetProperty(path, value, c.vm.declared[path]), nil
}

// getConfiguration is 0.1.0's: the plugin's configuration while a root is made or configured.
func getConfiguration(c call) (Status, error) {
	if c.vm.legacyCfg {
		return c.result(0, c.vm.PluginConfig)
	}
	return c.result(0, c.vm.VMConfig)
}

// sendLocalResponse always says OK, whether there is a stream to answer or not.
func sendLocalResponse(c call) (Status, error) {
	details, ok1 := c.bytes(1)
	body, ok2 := c.bytes(3)
	headers, ok3 := c.text(5)
	if !ok1 || !ok2 || !ok3 {
		return InvalidMemoryAccess, nil
	}
	if c.vm.effective == nil {
		return OK, nil
	}
	r := LocalResponse{Status: c.a.U32(0), Details: tokenize(string(details)), Body: string(body), GRPCStatus: -1}
	if g := int32(c.a.U32(7)); g >= 0 && g <= 16 {
		r.GRPCStatus = int(g)
	}
	pairs, err := clonePairs(headers)
	if err != nil { // Envoy: a list that can't be read is empty.
		c.vm.warnOnce("local response: headers are left out: " + err.Error())
	}
	r.Headers = pairs
	c.vm.effective.SendLocalResponse(r)
	return OK, nil
}

// tokenize makes details fit for an access log: no white space.
func tokenize(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || (r >= '\t' && r <= '\r') {
			return '_'
		}
		return r
	}, s)
}

func clonePairs(wire string) ([][2]string, error) {
	var out [][2]string
	err := eachPair(wire, func(name, value string) {
		out = append(out, [2]string{strings.ToLower(strings.Clone(name)), strings.Clone(value)})
	})
	return out, err
}

func continueStream(c call, s StreamType) Status {
	switch {
	case s >= numStreams:
		return BadArgument
	case s == UpstreamStream:
		return Unimplemented
	case c.vm.effective == nil:
		return OK
	}
	return c.vm.effective.Continue(s)
}

func closeStream(c call) (Status, error) {
	s := StreamType(c.a.U32(0))
	switch {
	case s >= numStreams:
		return BadArgument, nil
	case c.vm.effective == nil:
		return OK, nil
	}
	return c.vm.effective.Close(s), nil
}

func clearRouteCache(c call) (Status, error) {
	if c.vm.effective != nil {
		c.vm.effective.ClearRouteCache()
	}
	return OK, nil
}

func setEffectiveContext(c call) (Status, error) {
	target, ok := c.vm.Contexts[c.a.U32(0)]
	if !ok {
		return BadArgument, nil
	}
	c.vm.effective = target
	return OK, nil
}

func done(c call) (Status, error) {
	if !c.vm.Host.Done() {
		return NotFound, nil
	}
	return OK, nil
}

func setTick(c call) (Status, error) {
	c.vm.Host.SetTick(time.Duration(c.a.U32(0)) * time.Millisecond)
	return OK, nil
}

func currentTime(c call) (Status, error) {
	if !c.setLong(0, uint64(time.Now().UnixNano())) {
		return InvalidMemoryAccess, nil
	}
	return OK, nil
}

// abort is AssemblyScript's: message and file are UTF-16 strings with their byte length before them.
func abort(in *engine.Instance, a engine.Args) (uint64, error) {
	return 0, fmt.Errorf("abort: %s (%s:%d:%d)", utf16Text(in, a.U32(0)), utf16Text(in, a.U32(1)), a.U32(2), a.U32(3))
}

func utf16Text(in *engine.Instance, p uint32) string {
	size, ok := in.Bytes(p-4, 4)
	if p < 4 || !ok {
		return ""
	}
	n := uint32(size[0]) | uint32(size[1])<<8 | uint32(size[2])<<16 | uint32(size[3])<<24
	b, ok := in.Bytes(p, min(n, 1024)&^1)
	if !ok {
		return ""
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = uint16(b[2*i]) | uint16(b[2*i+1])<<8
	}
	return string(utf16.Decode(units))
}

// seed feeds AssemblyScript's Math.random.
func seed(*engine.Instance, engine.Args) (uint64, error) {
	return math.Float64bits(rand.Float64()), nil
}
