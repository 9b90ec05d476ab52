package xxhash_test

import (
	"strings"
	"testing"

	"sidecar/internal/xxhash"
)

// The values are those of the reference implementation.
func TestSum64(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		seed uint64
		want uint64
	}{
		{"", 0, 0xef46db3751d8e999},
		{"a", 0, 0xd24ec4f1a98c6e5b},
		{"abc", 0, 0x44bc2cf5ad770999},
		{"foo", 0, 0x33bf00a859c4ba3f},
		{"message digest", 0, 0x066ed728fceeb3be},
		{"abcdefghijklmnopqrstuvwxyz", 0, 0xcfe1f278fa89835c},
		{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 0, 0xaaa46907d3047814},
		{strings.Repeat("1234567890", 8), 0, 0xe04a477f19ee145d},
	} {
		if got := xxhash.Sum64(tt.seed, tt.text); got != tt.want {
			t.Errorf("%q: %#x, not %#x", tt.text, got, tt.want)
		}
		if got := xxhash.Sum64(tt.seed, []byte(tt.text)); got != tt.want {
			t.Errorf("%q as bytes: %#x", tt.text, got)
		}
	}
	if xxhash.Sum64(1, "a") == xxhash.Sum64(0, "a") {
		t.Error("the seed changes nothing")
	}
}

func TestAllocs(t *testing.T) {
	text := "10.0.0.1:8080, and something more than fits a block of thirty-two bytes"
	if n := testing.AllocsPerRun(100, func() { xxhash.Sum64(0, text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
