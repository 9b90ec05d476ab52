package uuid

import "testing"

func TestAppend(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		hi, lo uint64
		want   string
	}{
		{0, 0, "00000000-0000-4000-8000-000000000000"},
		{^uint64(0), ^uint64(0), "ffffffff-ffff-4fff-bfff-ffffffffffff"},
		{0x0123456789abcdef, 0xfedcba9876543210, "01234567-89ab-4def-bedc-ba9876543210"},
	} {
		if got := string(Append([]byte("x"), c.hi, c.lo)); got != "x"+c.want {
			t.Errorf("Append(%x, %x) = %q, want %q", c.hi, c.lo, got, c.want)
		}
	}
}
