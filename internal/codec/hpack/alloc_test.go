//go:build !race

package hpack

import (
	"fmt"
	"testing"

	"sidecar/api/header"
)

func TestAllocs(t *testing.T) {
	encode, decode := codec()
	i := 0
	run := func(f func(int)) func() { return func() { i++; f(i) } }
	for name, f := range map[string]func(int){"encode": encode, "decode": decode} {
		for j := range 64 {
			f(j)
		}
		if n := testing.AllocsPerRun(500, run(f)); n != 0 {
			t.Errorf("%s: %v allocations a head", name, n)
		}
	}
}

// Fields that always differ turn the tables over, whose memory stays as it is.
func TestChurnAllocs(t *testing.T) {
	var e Encoder
	e.Init()
	d := newDecoder(defaultTable)
	values := make([]string, 512)
	for i := range values {
		values[i] = fmt.Sprintf("value-%d", i*7919)
	}
	s := new(mapSink)
	out := make([]byte, 0, 256)
	i := 0
	churn := func() {
		i++
		s.m.Reset()
		out = e.Append(out[:0], header.None, "x-own", values[i%len(values)])
		if err := d.Decode(out, s); err != nil {
			t.Fatal(err)
		}
	}
	for range 2000 {
		churn()
	}
	if n := testing.AllocsPerRun(2000, churn); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := cap(d.t.arena) + cap(e.t.arena); n > 8*defaultTable {
		t.Errorf("tables of %d bytes", n)
	}
}
