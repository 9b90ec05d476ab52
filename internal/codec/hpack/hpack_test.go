package hpack

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	xhpack "golang.org/x/net/http2/hpack"

	"sidecar/api/header"
)

type field struct {
	Name, Value string
	Sensitive   bool
}

// collector keeps copies, and checks the ids.
type collector struct {
	fields []field
	fail   error
	badID  string
}

func (c *collector) Field(name, value []byte, id header.ID, sensitive bool) error {
	if c.fail != nil {
		return c.fail
	}
	if id != header.Lookup(name) {
		c.badID = string(name)
	}
	c.fields = append(c.fields, field{string(name), string(value), sensitive})
	return nil
}

func decode(t *testing.T, d *Decoder, block []byte) ([]field, error) {
	t.Helper()
	var c collector
	err := d.Decode(block, &c)
	if c.badID != "" {
		t.Errorf("%q came with another's id", c.badID)
	}
	return c.fields, err
}

func newDecoder(size uint32) *Decoder {
	d := new(Decoder)
	d.Init(size)
	return d
}

func unhex(s string) []byte {
	var b []byte
	for w := range strings.FieldsSeq(s) {
		for ; len(w) > 0; w = w[2:] {
			var c byte
			fmt.Sscanf(w[:2], "%02x", &c)
			b = append(b, c)
		}
	}
	return b
}

// The requests of RFC 7541 appendices C.3 and C.4, and the responses of C.6 with its table of 256
// bytes, each sequence on one decoder.
func TestDecodeRFC(t *testing.T) {
	t.Parallel()
	first := []field{
		{":method", "GET", false},
		{":scheme", "http", false},
		{":path", "/", false},
		{":authority", "www.example.com", false},
	}
	second := append(append([]field{}, first...), field{"cache-control", "no-cache", false})
	third := []field{
		{":method", "GET", false},
		{":scheme", "https", false},
		{":path", "/index.html", false},
		{":authority", "www.example.com", false},
		{"custom-key", "custom-value", false},
	}
	response := func(status, date string, more ...field) []field {
		return append([]field{
			{":status", status, false},
			{"cache-control", "private", false},
			{"date", date, false},
			{"location", "https://www.example.com", false},
		}, more...)
	}
	for _, tc := range []struct {
		name   string
		size   uint32
		blocks []string
		want   [][]field
	}{
		{"C.3 plain requests", 4096, []string{
			"828684410f7777772e6578616d706c652e636f6d",
			"828684be58086e6f2d6361636865",
			"828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
		}, [][]field{first, second, third}},
		{"C.4 coded requests", 4096, []string{
			"828684418cf1e3c2e5f23a6ba0ab90f4ff",
			"828684be5886a8eb10649cbf",
			"828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
		}, [][]field{first, second, third}},
		{"C.6 responses", 256, []string{
			"3fe101" + "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff" +
				"6e919d29ad171863c78f0b97c8e9ae82ae43d3",
			"4883640effc1c0bf",
			"88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335" +
				"dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
		}, [][]field{
			response("302", "Mon, 21 Oct 2013 20:13:21 GMT"),
			{
				{":status", "307", false},
				{"cache-control", "private", false},
				{"date", "Mon, 21 Oct 2013 20:13:21 GMT", false},
				{"location", "https://www.example.com", false},
			},
			response("200", "Mon, 21 Oct 2013 20:13:22 GMT", field{"content-encoding", "gzip", false},
				field{"set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1", false}),
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := newDecoder(tc.size)
			for i, block := range tc.blocks {
				got, err := decode(t, d, unhex(block))
				if err != nil {
					t.Fatalf("block %d: %v", i, err)
				}
				if diff := cmp.Diff(tc.want[i], got); diff != "" {
					t.Errorf("block %d (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, block string
		want        error
	}{
		{"index zero", "80", ErrIndex},
		{"index beyond the static table", "be", ErrIndex},
		{"name index beyond the tables", "7f00 00", ErrIndex},
		{"integer cut short", "ff", ErrTruncated},
		{"integer goes on", "ff80", ErrTruncated},
		{"integer too long", "ff8080808001", ErrInteger},
		{"integer overflows", "7fffffffffff0f", ErrInteger},
		{"no value", "0001 61", ErrTruncated},
		{"name cut short", "0005 6161", ErrTruncated},
		{"no name", "00", ErrTruncated},
		{"length beyond the block", "007f ffffff07", ErrTruncated},
		{"padding of zeros", "0081 00 00", ErrHuffman},
		{"padding of eight bits", "0082 1fff 00", ErrHuffman},
		{"only padding", "0081 ff 00", ErrHuffman},
		{"EOS", "0084 ffffffff 00", ErrHuffman},
		{"EOS within", "0085 1ffffffffc 00", ErrHuffman},
		{"update after a field", "82 20", ErrUpdate},
		{"three updates", "20 20 20", ErrUpdate},
		{"update above the limit", "3fe21f", ErrTableSize},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := newDecoder(4096)
			if _, err := decode(t, d, unhex(tc.block)); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestDecodeSensitive(t *testing.T) {
	t.Parallel()
	got, err := decode(t, newDecoder(4096), unhex("10 0161 0162 0f08 0163"))
	if err != nil {
		t.Fatal(err)
	}
	want := []field{{"a", "b", true}, {"authorization", "c", false}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSinkError(t *testing.T) {
	t.Parallel()
	want := errors.New("enough")
	if err := newDecoder(4096).Decode([]byte{0x82}, &collector{fail: want}); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

// A table that becomes smaller must be announced, once the peer knows.
func TestConfirm(t *testing.T) {
	t.Parallel()
	d := newDecoder(100)
	if _, err := decode(t, d, unhex("3fe11f 4001610162")); err != nil {
		t.Fatalf("before the acknowledgement: %v", err)
	}
	d.Confirm()
	if _, err := decode(t, d, nil); err != nil {
		t.Errorf("empty block: %v", err)
	}
	if _, err := decode(t, d, unhex("82")); !errors.Is(err, ErrNoUpdate) {
		t.Errorf("without an update: %v", err)
	}
	if _, err := decode(t, d, unhex("3f46")); !errors.Is(err, ErrTableSize) {
		t.Errorf("above: %v", err)
	}
	got, err := decode(t, d, unhex("3f45 be"))
	if err != nil || len(got) != 1 || got[0].Name != "a" {
		t.Errorf("at the limit: %v, %v", got, err)
	}
}

// TestEviction: names and values hold while their entry makes place for the one that uses its name.
func TestEviction(t *testing.T) {
	t.Parallel()
	d := newDecoder(4096)
	var in bytes.Buffer
	x := xhpack.NewEncoder(&in)
	x.SetMaxDynamicTableSizeLimit(4096)
	x.SetMaxDynamicTableSize(200)
	for i := range 200 {
		in.Reset()
		want := []field{}
		for j := range i % 7 {
			f := field{
				Name:  fmt.Sprintf("name-%d", (i+j)%5) + strings.Repeat("n", i%90),
				Value: strings.Repeat(string(rune('a'+j)), (i*j)%130),
			}
			want = append(want, f)
			if err := x.WriteField(xhpack.HeaderField{Name: f.Name, Value: f.Value}); err != nil {
				t.Fatal(err)
			}
		}
		got, err := decode(t, d, in.Bytes())
		if err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		if diff := cmp.Diff(want, append([]field{}, got...)); diff != "" {
			t.Fatalf("block %d (-want +got):\n%s", i, diff)
		}
	}
}

// encode gives the bytes, and what x/net makes of them.
func encode(t *testing.T, e *Encoder, x *xhpack.Decoder, fields ...field) ([]byte, []field) {
	t.Helper()
	var b []byte
	for _, f := range fields {
		b = e.Append(b, header.Lookup(f.Name), f.Name, f.Value)
	}
	got, err := x.DecodeFull(b)
	if err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	var out []field
	for _, f := range got {
		out = append(out, field{f.Name, f.Value, f.Sensitive})
	}
	return b, out
}

func TestEncode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name          string
		field         field
		first, second string // representations: indexed, literal, once, never
	}{
		{"static", field{":method", "GET", false}, "indexed", "indexed"},
		{"static status", field{":status", "500", false}, "indexed", "indexed"},
		{"another status", field{":status", "302", false}, "literal", "indexed"},
		{"static with a value", field{"accept-encoding", "gzip, deflate", false}, "indexed", "indexed"},
		{"static without a value", field{"accept", "", false}, "indexed", "indexed"},
		{"static unknown to the map", field{"accept-language", "en", false}, "literal", "indexed"},
		{"path", field{":path", "/a", false}, "once", "once"},
		{"static path", field{":path", "/", false}, "indexed", "indexed"},
		{"well-known", field{"x-forwarded-proto", "https", false}, "literal", "indexed"},
		{"own", field{"x-own", "v", false}, "literal", "indexed"},
		{"own, empty", field{"x-own", "", false}, "literal", "indexed"},
		{"request id", field{"x-request-id", "6f1c", false}, "once", "once"},
		{"trace id", field{"x-b3-traceid", "6f1c", false}, "once", "once"},
		{"content length", field{"content-length", "10", false}, "once", "once"},
		{"secret", field{"authorization", "Basic YTpi", true}, "never", "never"},
		{"secret unknown to the map", field{"proxy-authorization", "Basic YTpi", true}, "never", "never"},
		{"short cookie", field{"cookie", "a=b", true}, "never", "never"},
		{"long cookie", field{"cookie", "a=0123456789abcdefghij", false}, "literal", "indexed"},
		{"large", field{"x-own", strings.Repeat("v", 4000), false}, "once", "once"},
		{"binary", field{"x-own", "\x00\xff\x80\x7f", false}, "literal", "indexed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var e Encoder
			e.Init()
			x := xhpack.NewDecoder(4096, nil)
			for i, want := range []string{tc.first, tc.second} {
				b, got := encode(t, &e, x, tc.field)
				if diff := cmp.Diff([]field{tc.field}, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if r := representation(b[0]); r != want {
					t.Errorf("time %d: %s, want %s", i+1, r, want)
				}
			}
		})
	}
}

func representation(c byte) string {
	switch {
	case c&0x80 != 0:
		return "indexed"
	case c&0x40 != 0:
		return "literal"
	case c&0x10 != 0:
		return "never"
	}
	return "once"
}

// A name that is only in the dynamic table is sent as its index.
func TestEncodeDynamicName(t *testing.T) {
	t.Parallel()
	var e Encoder
	e.Init()
	x := xhpack.NewDecoder(4096, nil)
	encode(t, &e, x, field{"x-own", "one", false})
	b, got := encode(t, &e, x, field{"x-own", "two", false})
	if b[0] != 0x40|62 || got[0].Name != "x-own" || got[0].Value != "two" {
		t.Errorf("%x is %v", b, got)
	}
}

func TestEncodeTableSize(t *testing.T) {
	t.Parallel()
	var e Encoder
	e.Init()
	x := xhpack.NewDecoder(4096, nil)
	own := field{"x-own", "one", false}
	encode(t, &e, x, own)
	e.SetPeerTableSize(1 << 20)
	if b, _ := encode(t, &e, x, own); len(b) != 1 {
		t.Errorf("a larger table changes the block to %x", b)
	}
	e.SetPeerTableSize(0)
	e.SetPeerTableSize(100)
	b, got := encode(t, &e, x, own, own)
	if want := unhex("20 3f45"); !bytes.HasPrefix(b, want) || representation(b[3]) != "literal" {
		t.Errorf("block %x does not begin with %x and a literal", b, want)
	}
	if b[len(b)-1] != 0xbe {
		t.Errorf("%x does not find the field again", b)
	}
	if diff := cmp.Diff([]field{own, own}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	e.SetPeerTableSize(0)
	x.SetMaxDynamicTableSize(0)
	if b, _ = encode(t, &e, x, own, own); b[0] != 0x20 || representation(b[1]) != "once" {
		t.Errorf("without a table: %x", b)
	}
}

func TestDisableHuffman(t *testing.T) {
	t.Parallel()
	var e Encoder
	e.Init()
	e.DisableHuffman()
	if b := e.Append(nil, header.Path, ":path", "/abc"); string(b) != "\x04\x04/abc" {
		t.Errorf("got %q", b)
	}
}

// Every symbol, alone and among others.
func TestHuffman(t *testing.T) {
	t.Parallel()
	for s := range 256 {
		for _, text := range []string{string([]byte{byte(s)}), "ab" + string([]byte{byte(s), 'z', byte(s)})} {
			coded := xhpack.AppendHuffmanString(nil, text)
			if got, ok := appendDecoded(nil, coded); !ok || string(got) != text {
				t.Errorf("%x is %q, %v; want %q", coded, got, ok, text)
			}
		}
	}
}
