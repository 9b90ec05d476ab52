package server

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCleanMappings(t *testing.T) {
	t.Parallel()
	one := func(header, anonymous, swap string) string {
		return header + "\nSize: 4 kB\nRss: 4 kB\nAnonymous: " + anonymous + " kB\nSwap: " + swap + " kB\nVmFlags: rd mr\n"
	}
	smaps := strings.Join([]string{
		one("00400000-00500000 r-xp 00000000 08:01 7 /bin/sidecar", "0", "0"),
		one("00500000-00600000 r--p 00100000 08:01 7 /bin/sidecar", "0", "0"),
		one("00600000-00700000 r--p 00200000 08:01 7 /bin/sidecar", "8", "0"), // relocated and sealed
		one("00700000-00800000 r--p 00200000 08:01 7 /bin/sidecar", "0", "4"),
		one("00800000-00900000 rw-p 00300000 08:01 7 /bin/sidecar", "0", "0"),
		one("00900000-00a00000 r-xp 00000000 08:01 8 /lib/libc.so", "0", "0"),
		one("c000000000-c000400000 rw-p 00000000 00:00 0", "0", "0"),
		one("00x r-xp 00000000 08:01 7 /bin/sidecar", "0", "0"),
		"00b00000-00c00000 r-xp 00000000 08:01 7 /bin/sidecar\nRss: 4 kB\n", // an older kernel says less
	}, "")
	got := cleanMappings([]byte(smaps), "/bin/sidecar")
	want := []mapping{{0x400000, 0x500000}, {0x500000, 0x600000}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mapping{})); diff != "" {
		t.Error(diff)
	}
}
