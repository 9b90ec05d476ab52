package server_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestUpstreamProxyProtocol_TLVs passes TLVs of the client's header on to the host, and no others.
func TestUpstreamProxyProtocol_TLVs(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	const pass = "pass_through_tlvs: {match_type: INCLUDE, tlv_type: [2, 4]}"
	text := tcpProxy(ln.Addr().String(), "")
	text = strings.Replace(text, "    filter_chains:", `    listener_filters:
    - name: proxy_protocol
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, `+pass+`}
    filter_chains:`, 1)
	p := live(t, text+strings.Replace(proxyTransport, "        transport_socket:", "        config: {version: V2, "+pass+"}\n        transport_socket:", 1))
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.listener("l"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const addresses = "\x01\x02\x03\x04\x05\x06\x07\x08\x00\x09\x00\x0a"
	const start = "\r\n\r\n\x00\r\nQUIT\n\x21\x11"
	if _, err := io.WriteString(c, start+"\x00\x16"+addresses+"\x03\x00\x03abc\x02\x00\x01z"+"hello"); err != nil {
		t.Fatal(err)
	}
	up, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	want := start + "\x00\x10" + addresses + "\x02\x00\x01z" + "hello"
	got := make([]byte, len(want))
	_ = up.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(up, got); err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
}
