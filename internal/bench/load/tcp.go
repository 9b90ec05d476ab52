package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// PingPong sends a message of size bytes on each of n connections and waits for it to come back,
// over and over until ctx ends. It returns the number of round trips.
func PingPong(ctx context.Context, address string, n, size int) (int64, error) {
	var trips atomic.Int64
	err := each(n, func() error {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		out, in := make([]byte, size), make([]byte, size)
		for ctx.Err() == nil {
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				return err
			}
			if _, err := conn.Write(out); err != nil {
				return err
			}
			if _, err := io.ReadFull(conn, in); err != nil {
				return err
			}
			trips.Add(1)
		}
		return nil
	})
	return trips.Load(), err
}

// Bulk sends total bytes on each of n connections to an echo server and reads them back.
func Bulk(address string, n int, total int64) error {
	return each(n, func() error {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			return err
		}
		sent := make(chan error, 1)
		go func() {
			block := make([]byte, 256<<10)
			var err error
			for left := total; left > 0 && err == nil; {
				var k int
				k, err = conn.Write(block[:min(left, int64(len(block)))])
				left -= int64(k)
			}
			sent <- err
		}()
		block := make([]byte, 256<<10)
		for left := total; left > 0; {
			k, err := conn.Read(block)
			if err != nil {
				conn.Close()
				return errors.Join(err, <-sent)
			}
			left -= int64(k)
		}
		return <-sent
	})
}

// Hold opens n connections, sends first on each and reads want bytes of the answer (none for 0);
// it returns them open.
func Hold(address string, n int, first string, want int) ([]net.Conn, error) {
	conns := make([]net.Conn, 0, n)
	buf := make([]byte, want)
	for len(conns) < n {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			return conns, fmt.Errorf("connection %d: %w", len(conns), err)
		}
		conns = append(conns, conn)
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return conns, err
		}
		if _, err := io.WriteString(conn, first); err != nil {
			return conns, fmt.Errorf("connection %d: %w", len(conns), err)
		}
		if _, err := io.ReadFull(conn, buf); err != nil {
			return conns, fmt.Errorf("connection %d: %w", len(conns), err)
		}
	}
	return conns, nil
}

// CloseAll closes what Hold returned.
func CloseAll(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

func each(n int, do func() error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
