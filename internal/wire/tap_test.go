package wire_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/wire"
)

// prefix takes three bytes off what is read and is done; it puts one in front of each write.
type prefix struct {
	kept   []byte
	writes int
}

func (p *prefix) OnRead(data *buf.Buffer, _ bool) bool {
	for data.Len() > 0 && len(p.kept) < 3 {
		p.kept = append(p.kept, data.Bytes()[0])
		data.Consume(1)
	}
	return len(p.kept) < 3
}

func (p *prefix) OnWrite(data *buf.Buffer) bool {
	p.writes++
	data.Prepend([]byte("<"))
	return p.writes < 2
}

func TestTap(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.New(nc, wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := &prefix{}
	c.Tap([]wire.ReadTap{p}, []wire.WriteTap{p})

	for _, s := range []string{"ab", "c", "rest"} {
		if _, err := client.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got := ""
	for {
		b, n, err := c.Read(16, func() bool { return true })
		if b != nil {
			got += string(b.B[:n])
			b.Put()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got != "rest" || string(p.kept) != "abc" {
		t.Errorf("read %q, kept %q", got, p.kept)
	}
	for range 3 {
		stream.Do(func(t *stream.Turn) { c.Send(t, []byte("x")) })
		c.WaitSent()
	}
	if c.Tapped() {
		t.Error("taps that are done still look")
	}
	c.CloseWrite()
	back, err := io.ReadAll(client)
	if err != nil || string(back) != "<x<xx" {
		t.Errorf("wrote %q, %v", back, err)
	}
}
