package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HoldHTTP2 opens n HTTP/2 connections, over TLS unless c is nil, does one request on each and
// returns them open.
func HoldHTTP2(address string, n int, c *tls.Config, path string) ([]net.Conn, error) {
	conns := make([]net.Conn, 0, n)
	for len(conns) < n {
		conn, err := dialHTTP2(address, c)
		if err != nil {
			return conns, fmt.Errorf("connection %d: %w", len(conns), err)
		}
		conns = append(conns, conn)
		if err := requestHTTP2(conn, path); err != nil {
			return conns, fmt.Errorf("connection %d: %w", len(conns), err)
		}
		if err := awaitAnswer(conn); err != nil {
			return conns, fmt.Errorf("connection %d: %w", len(conns), err)
		}
	}
	return conns, nil
}

func dialHTTP2(address string, c *tls.Config) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if c == nil {
		return conn, nil
	}
	secure := tls.Client(conn, c)
	if err := secure.Handshake(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

// requestHTTP2 sends the preface and one request.
func requestHTTP2(conn net.Conn, path string) error {
	var block, out bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "bench.test"},
		{Name: ":path", Value: path},
	} {
		if err := e.WriteField(f); err != nil {
			return err
		}
	}
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	if err := f.WriteSettings(); err != nil {
		return err
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true,
	}); err != nil {
		return err
	}
	_, err := conn.Write(out.Bytes())
	return err
}

func awaitAnswer(conn net.Conn) error {
	f := http2.NewFramer(conn, conn)
	f.SetReuseFrames()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return nil
			}
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				if err := f.WriteSettingsAck(); err != nil {
					return err
				}
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return fmt.Errorf("%s instead of an answer", frame.Header())
		}
	}
}

// Stall opens one connection of HTTP/1.1 and one of HTTP/2, asks for path on both, and returns them
// without ever having read.
func Stall(address, path string) ([]net.Conn, error) {
	one, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	conns := []net.Conn{one}
	if _, err := io.WriteString(one, Request(path)); err != nil {
		return conns, err
	}
	two, err := dialHTTP2(address, nil)
	if err != nil {
		return conns, err
	}
	return append(conns, two), requestHTTP2(two, path)
}

// Paced runs n streams on one HTTP/2 connection without TLS; each asks for path every so often, until
// ctx ends. It returns how long each answer took, in order of length.
func Paced(ctx context.Context, address, path string, n int, every time.Duration) ([]time.Duration, error) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols, MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var took []time.Duration
	err := each(n, func() error {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
			start := time.Now()
			if err := get(ctx, client, "http://"+address+path); err != nil {
				return err
			}
			mu.Lock()
			took = append(took, time.Since(start))
			mu.Unlock()
		}
	})
	slices.Sort(took)
	return took, err
}

func get(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", resp.Status)
	}
	return err
}
