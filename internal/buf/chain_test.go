package buf

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"
)

// contents returns what a chain holds.
func contents(c *Chain) []byte {
	p := make([]byte, c.Len())
	return p[:c.Peek(p)]
}

// TestChain compares random sequences of calls with a plain slice.
func TestChain(t *testing.T) {
	t.Parallel()
	const seeds, steps = 20, 100
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 1))
		var c [2]Chain
		var want [2][]byte
		for range steps {
			i := r.IntN(2)
			p := random(r)
			switch r.IntN(7) {
			case 0:
				c[i].Append(p)
				want[i] = append(want[i], p...)
			case 1:
				c[i].AppendString(string(p))
				want[i] = append(want[i], p...)
			case 2:
				b := GetBlock(len(p) + 10)
				copy(b.B[5:], p)
				c[i].AppendShared(b, b.B[5:5+len(p)])
				b.Put()
				want[i] = append(want[i], p...)
			case 3:
				c[i].Extend(copy(c[i].Tail(len(p)), p))
				want[i] = append(want[i], p...)
			case 4:
				n := r.IntN(c[i].Len() + 1)
				c[1-i].Move(&c[i], n)
				want[1-i] = append(want[1-i], want[i][:n]...)
				want[i] = want[i][n:]
			case 5:
				n := r.IntN(c[i].Len() + 1)
				c[i].Consume(n)
				want[i] = want[i][n:]
			case 6:
				c[0].Swap(&c[1])
				want[0], want[1] = want[1], want[0]
			}
			for i := range c {
				if c[i].Len() != len(want[i]) || !bytes.Equal(contents(&c[i]), want[i]) {
					t.Fatalf("seed %d: chain %d differs", seed, i)
				}
			}
		}
		for i := range c {
			c[i].Reset()
			if c[i] != (Chain{}) {
				t.Fatalf("seed %d: %+v after Reset", seed, c[i])
			}
		}
	}
}

// random returns random bytes of a random length, often short.
func random(r *rand.Rand) []byte {
	p := make([]byte, r.IntN(1<<(1+r.IntN(17))))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func TestChainWriteTo(t *testing.T) {
	t.Parallel()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c Chain
	var want []byte
	for i := range 200 {
		b := GetBlock(MinShare)
		for j := range b.B {
			b.B[j] = byte(i)
		}
		c.AppendShared(b, b.B)
		b.Put()
		c.Append([]byte{byte(i + 1)})
		want = append(append(want, bytes.Repeat([]byte{byte(i)}, MinShare)...), byte(i+1))
	}
	for c.Len() > 0 {
		n, err := c.WriteTo(int(f.Fd()))
		if err != 0 {
			t.Fatal(err)
		}
		c.Consume(n)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v, want %d", len(got), err, len(want))
	}
}

func TestBlockShared(t *testing.T) {
	t.Parallel()
	b := GetBlock(Small)
	var x Buffer
	x.AppendShared(b, b.B[8:8+MinShare-8])
	if x.Len() != MinShare-8 || x.shared {
		t.Error("few bytes are not copied")
	}
	x.Reset()
	x.AppendShared(b, b.B)
	b.Put()
	if !x.shared || &x.Bytes()[0] != &b.B[0] {
		t.Error("a copy was made")
	}
	x.Append([]byte("x"))
	if x.shared || x.Len() != Small+1 {
		t.Error("the block of others was appended to")
	}
	x.Reset()
	defer func() {
		if recover() == nil {
			t.Error("a block may be put back twice")
		}
	}()
	b.Put()
}
