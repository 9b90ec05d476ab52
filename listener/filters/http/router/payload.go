package router

import (
	"strings"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
)

// payload is what follows the head of a request. That of a tunnel waits until the upstream has granted
// it: sent to an upstream that refuses, it could be read as further requests.
type payload uint8

const (
	ordinary  payload = iota
	connect           // of CONNECT: waits for a 2xx
	webSocket         // waits for a 101
)

func payloadOf(h *header.Map) payload {
	switch {
	case h.Value(header.Method) == "CONNECT":
		return connect
	case strings.EqualFold(h.Value(header.Upgrade), "websocket"):
		// The connection manager has taken an Upgrade away that doesn't ask for one.
		return webSocket
	}
	return ordinary
}

func (p payload) waits() bool { return p != ordinary }

// granted tells whether a response of this status lets the payload go.
func (p payload) granted(status int) bool {
	return p == connect && status/100 == 2 || p == webSocket && status == 101
}

// refuseWebSocket answers for an upstream that takes the request for an ordinary one: the client gets
// the head, but no body that it could take for frames (Envoy: UpstreamRequest::decodeHeaders).
func (r *Filter) refuseWebSocket(t *stream.Turn, status int, from *header.Map) {
	r.done, r.sentEnd = true, false
	r.reply(t, &filter.Reply{
		Status: status, Details: "websocket_handshake_unsuccessful", GRPCStatus: -1,
		Headers: func(h *header.Map) {
			for i := range from.Len() {
				name, value := from.At(i)
				if id := from.IDAt(i); name[0] != ':' && id != header.ContentLength && id != header.ContentType {
					h.Add(name, value)
				}
			}
		},
	})
}
