package tlsinspector

import (
	"encoding/hex"
	"testing"

	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
)

type recorded struct {
	name     string
	bytes    []byte
	sni      string
	ja3, ja4 string // Envoy 1.40's
}

func hellos(t testing.TB) []recorded {
	t.Helper()
	const (
		version = "0303000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00"
		name    = "00000010000e00000b7365727665722e74657374"
		middle  = "000b00030200010010000e000c02683208687474702f312e31000d0006000404030804002b00"
		share   = "003300260024001d00206b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b"
	)
	out := []recorded{
		{name: "TLS 1.3", sni: "server.test", ja3: "f1cc22716ea44f7e08ec52827c09c427", ja4: "t13d0307h2_5559582ccdc4_078775ef5e04"},
		{name: "with reserved values", sni: "server.test", ja3: "ddcec4d604caafe55e1a87141331bf96", ja4: "t13d0307h2_5559582ccdc4_078775ef5e04"},
		{name: "TLS 1.2, no name", ja3: "51b18f2145840fc494e16f81d9bdb436", ja4: "t12i020300_37f356531c84_379eb492da94"},
		{name: "no extensions", ja3: "fde4273625b2ac63bd01d9c500dac91b", ja4: "t12i010000_ba72b8082249_000000000000"},
		{name: "a protocol that is no word", ja3: "41132b41d8d5fc48d17910195c82433e", ja4: "t12i0202a3_08dfa304a768_a8f3e973773c"},
		{name: "a protocol of one letter", sni: "server.test", ja3: "924bd8e92fdc0dae36b175dd84bab8ff", ja4: "t12d0102xx_f06271c2b022_000000000000"},
	}
	for i, text := range []string{
		"16030100a7010000a3" + version + "000613011302c02b01000074" + name + "000a00060004001d0017" + middle + "050403040303" + share,
		"16030100b6010000b2" + version + "00080a0a13011302c02b01000081dada0000" + name + "000a000800062a2a001d0017" + middle + "07063a3a03040303" + share + "1a1a000100",
		"160301004801000044" + version + "0004c02f002f01000017000a000400020017000b0003020001000d000400020401",
		"160301002d01000029" + version + "0002002f0100",
		"16030100430100003f" + version + "0004c02f009c0100001200100006000403ab2e63000a000400020017",
		"160301004b01000047" + version + "0002c02f0100001c00100004000201780" + name[1:],
	} {
		p, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(out[i].name, err)
		}
		out[i].bytes = p
	}
	return out
}

func TestFingerprints(t *testing.T) {
	t.Parallel()
	for _, h := range hellos(t) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			f, err := Compile(&tlsinspectorv3.TlsInspector{
				EnableJa3Fingerprinting: wrapperspb.Bool(true), EnableJa4Fingerprinting: wrapperspb.Bool(true),
			}, filter.ListenerContext{Scope: stats.New().Root()})
			if err != nil {
				t.Fatal(err)
			}
			for _, in := range [][]byte{h.bytes, fragment(h.bytes, 9)} {
				info := &stream.ConnInfo{}
				f.Inspect(in, info)
				if info.JA3 != h.ja3 || info.JA4 != h.ja4 || info.SNI != h.sni {
					t.Errorf("got %q, %q, %q; want %q, %q, %q", info.JA3, info.JA4, info.SNI, h.ja3, h.ja4, h.sni)
				}
			}
			info := &stream.ConnInfo{}
			make1(t, &tlsinspectorv3.TlsInspector{}).Inspect(h.bytes, info)
			if info.JA3+info.JA4 != "" {
				t.Error("fingerprints are made unasked")
			}
		})
	}
}

// TestInspect_Split holds that a hello is understood wherever it is cut, and not before it is whole.
func TestInspect_Split(t *testing.T) {
	t.Parallel()
	f := make1(t, &tlsinspectorv3.TlsInspector{})
	for _, h := range append(hellos(t), recorded{name: "a real client", bytes: clientHello(t, "a.test", "h2"), sni: "a.test"}) {
		for n := range h.bytes {
			info := &stream.ConnInfo{}
			if _, v := f.Inspect(h.bytes[:n], info); v != filter.More || info.TransportProtocol != "" {
				t.Fatalf("%s: the first %d bytes of %d: verdict %d", h.name, n, len(h.bytes), v)
			}
		}
		info := &stream.ConnInfo{}
		if _, v := f.Inspect(h.bytes, info); v != filter.Next || info.TransportProtocol != "tls" || info.SNI != h.sni {
			t.Errorf("%s: verdict %d, %q, %q", h.name, v, info.TransportProtocol, info.SNI)
		}
	}
	if _, v := f.Inspect([]byte("\x80\x2e\x01\x03\x01"), &stream.ConnInfo{}); v != filter.Next || f.stats.TLSNotFound.Value() != 1 {
		t.Errorf("a hello of SSL 2: verdict %d", v)
	}
}
