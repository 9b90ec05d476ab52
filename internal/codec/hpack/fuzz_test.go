package hpack

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	xhpack "golang.org/x/net/http2/hpack"

	"sidecar/api/header"
)

// seeds are blocks by name, in hex.
func seeds() []struct{ name, block string } {
	return []struct{ name, block string }{
		{"empty", ""},
		{"RFC C.2.1 literal with indexing", "400a637573746f6d2d6b65790d637573746f6d2d686561646572"},
		{"RFC C.2.2 literal without indexing", "040c2f73616d706c652f70617468"},
		{"RFC C.2.3 never indexed", "100870617373776f726406736563726574"},
		{"RFC C.2.4 indexed", "82"},
		{"RFC C.3.1 request", "828684410f7777772e6578616d706c652e636f6d"},
		{"RFC C.4.1 coded request", "828684418cf1e3c2e5f23a6ba0ab90f4ff"},
		{"RFC C.6.1 response", "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff"},
		{"indexed zero", "80"},
		{"indexed beyond", "ff8001"},
		{"newest entry twice", "4001610162bebe"},
		{"name of the newest", "40016101627e0163"},
		{"update to zero", "20"},
		{"update to zero and back", "203fe11f"},
		{"update too large", "3fe21f"},
		{"update after a field", "8220"},
		{"entry larger than the table", "3f014001610162be"},
		{"integer with zeros behind", "7f80808000"},
		{"integer too long", "ffffffffffffffff7f"},
		{"length beyond the block", "00ff"},
		{"Huffman with EOS", "0084ffffffff00"},
		{"Huffman padded with zeros", "00811800"},
		{"Huffman, all long codes", "008bfffffffcffffffcfffffff4000"},
	}
}

// reference decodes with x/net. Its limits of strings are off; ours come from the frame.
func reference(blocks ...[]byte) (out [][]field, err error) {
	var got []field
	d := xhpack.NewDecoder(defaultTable, func(f xhpack.HeaderField) {
		got = append(got, field{f.Name, f.Value, f.Sensitive})
	})
	for _, b := range blocks {
		got = nil
		if _, err := d.Write(b); err != nil {
			return out, err
		}
		if err := d.Close(); err != nil {
			return out, err
		}
		out = append(out, got)
	}
	return out, nil
}

// FuzzDecode compares with x/net on two blocks of one connection.
func FuzzDecode(f *testing.F) {
	for _, s := range seeds() {
		f.Add(unhex(s.block), []byte{0xbe, 0xbf})
		f.Add(unhex("40016101623fe11f"[:10]), unhex(s.block))
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		want, wantErr := reference(one, two)
		d := newDecoder(defaultTable)
		for i, b := range [][]byte{one, two} {
			got, err := decode(t, d, b)
			if err != nil {
				// We refuse more: a third update, and integers of more than five bytes, which x/net takes
				// if they are zeros in the end.
				stricter := errors.Is(err, ErrUpdate) || errors.Is(err, ErrInteger)
				if len(want) > i && !stricter {
					t.Fatalf("block %d: refused: %v", i, err)
				}
				return
			}
			if len(want) <= i && wantErr != nil && strings.Contains(wantErr.Error(), "MUST occur at the beginning") {
				return // x/net takes one update only, where RFC 7541 section 4.2 has two
			}
			if len(want) <= i {
				t.Fatalf("block %d: taken, x/net says %v", i, wantErr)
			}
			if diff := cmp.Diff(want[i], got); diff != "" {
				t.Fatalf("block %d (-x/net +ours):\n%s", i, diff)
			}
		}
	})
}

// FuzzRoundTrip encodes fields on one connection and decodes them with x/net and with our decoder.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range seeds() {
		f.Add(unhex(s.block), uint32(defaultTable))
	}
	f.Add([]byte("\x05:path\x02/a\x0dauthorization\x01x\x05x-own\x03one\x05x-own\x03two"), uint32(64))
	f.Add([]byte("\x06cookie\x01a\x06cookie\x18012345678901234567890123"), uint32(1<<20))
	f.Add(bytes.Repeat([]byte("\x01a\x01b\x01b\x01a"), 40), uint32(100))
	f.Fuzz(func(t *testing.T, data []byte, size uint32) {
		var e Encoder
		e.Init()
		ours := newDecoder(defaultTable)
		x := xhpack.NewDecoder(defaultTable, nil)
		for round := range 3 {
			if round == 1 {
				e.SetPeerTableSize(size)
			}
			var block []byte
			var want []field
			for p := data; len(p) > 0; {
				var name, value string
				name, p = cut(p)
				value, p = cut(p)
				want = append(want, field{Name: name, Value: value})
				block = e.Append(block, header.Lookup(name), name, value)
			}
			got, err := decode(t, ours, block)
			if err != nil {
				t.Fatalf("%x: %v", block, err)
			}
			ref, err := x.DecodeFull(block)
			if err != nil || len(ref) != len(got) {
				t.Fatalf("%x: %d fields, x/net has %d: %v", block, len(got), len(ref), err)
			}
			for i := range ref {
				if ref[i].Name != got[i].Name || ref[i].Value != got[i].Value || ref[i].Sensitive != got[i].Sensitive {
					t.Fatalf("%x: field %d is %v, x/net has %v", block, i, got[i], ref[i])
				}
				got[i].Sensitive = false
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("round %d (-want +got):\n%s", round, diff)
			}
			if e.t.size > e.t.max {
				t.Fatalf("table of %d bytes, %d allowed", e.t.size, e.t.max)
			}
		}
	})
}

// cut takes a string off p whose length is the first byte.
func cut(p []byte) (string, []byte) {
	if len(p) == 0 {
		return "", nil
	}
	n := min(int(p[0]), len(p)-1)
	return string(p[1 : 1+n]), p[1+n:]
}
