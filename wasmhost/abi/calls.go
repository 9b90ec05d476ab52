package abi

import (
	"bytes"
	"time"

	"sidecar/api/header"
)

// CallResponse is the answer to a call-out, readable while its callback runs. Nil Headers: none came.
type CallResponse struct {
	Headers, Trailers *header.Map
	Body              []byte
	present           bool
}

// NewCallResponse is an answer that was received.
func NewCallResponse(headers, trailers *header.Map, body []byte) CallResponse {
	return CallResponse{Headers: headers, Trailers: trailers, Body: body, present: true}
}

func httpCall(c call) (Status, error) {
	cluster, ok1 := c.bytes(0)
	headers, ok2 := c.text(2)
	body, ok3 := c.bytes(4)
	trailers, ok4 := c.text(6)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return InvalidMemoryAccess, nil
	}
	h, err := clonePairs(headers)
	t, err2 := clonePairs(trailers)
	timeout := int32(c.a.U32(8))
	if err != nil || err2 != nil || timeout < 0 || !complete(h) {
		return BadArgument, nil //nolint:nilerr // the status tells the guest
	}
	out := HTTPCall{
		Cluster: string(cluster), Headers: h, Trailers: t, Body: bytes.Clone(body),
		Timeout: time.Duration(timeout) * time.Millisecond, From: c.vm.effective,
	}
	if _, ok := c.vm.in.Bytes(c.a.U32(9), 4); !ok {
		return InvalidMemoryAccess, nil
	}
	token, s := c.vm.Host.HTTPCall(out)
	if s != OK {
		return s, nil
	}
	return c.word(9, token)
}

// complete tells whether a request has what Envoy demands; :scheme isn't.
func complete(h [][2]string) bool {
	var found int
	for _, want := range [...]string{":path", ":method", ":authority"} {
		for _, p := range h {
			if p[0] == want {
				found++
				break
			}
		}
	}
	return found == 3
}
