// Package upstream is the server behind the proxies in the benchmarks: fixed answers, and as little
// CPU for each as possible, because it shares the machine with what is measured. It runs as a
// process of its own, so that its CPU time is nobody else's.
//
// Only the bench uses it; it is apart so that its parser is tested.
package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Paths of the HTTP server. Any other path gets an answer of 1 KB.
const (
	PathSize  = "/size/"  // followed by the number of bytes
	PathDelay = "/delay/" // followed by milliseconds, then 1 KB
	PathEcho  = "/echo"   // 1 KB, and x-seen with what came as SeenHeader
)

// SeenHeader is the request header whose values PathEcho sends back, joined with commas.
const SeenHeader = "x-plugin-request"

const (
	answerBytes  = 1024
	maxBytes     = 64 << 20
	maxHeadBytes = 64 << 10
)

// ServeHTTP answers HTTP/1.1 requests without bodies on l until it is closed.
func ServeHTTP(l net.Listener) error {
	plain := answer(answerBytes, "")
	return serve(l, func(conn net.Conn) { serveConn(conn, plain) })
}

// ServeEcho sends back what comes on l until it is closed.
func ServeEcho(l net.Listener) error {
	return serve(l, func(conn net.Conn) {
		// Not io.Copy: splice would need two system calls more for a small message.
		buf := make([]byte, 16<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
	})
}

func serve(l net.Listener, handle func(net.Conn)) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors: connections that end will free some.
			time.Sleep(5 * time.Millisecond)
			continue
		}
		go func() {
			defer conn.Close()
			handle(conn)
		}()
	}
}

func answer(n int, extra string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n%s\r\n", n, extra)
	b.Write(bytes.Repeat([]byte{'x'}, n))
	return b.Bytes()
}

func serveConn(conn net.Conn, plain []byte) {
	buf := make([]byte, 0, 4096)
	for {
		end := bytes.Index(buf, []byte("\r\n\r\n"))
		for end < 0 {
			if len(buf) == cap(buf) {
				if len(buf) >= maxHeadBytes {
					return
				}
				buf = append(make([]byte, 0, 2*cap(buf)), buf...)
			}
			n, err := conn.Read(buf[len(buf):cap(buf)])
			if err != nil {
				return
			}
			buf = buf[:len(buf)+n]
			end = bytes.Index(buf, []byte("\r\n\r\n"))
		}
		if bytes.Contains(buf[:end], []byte("\ntransfer-encoding:")) {
			// The loads send no bodies: a proxy that makes one up would otherwise be a puzzle later.
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
			return
		}
		reply := plain
		if path := requestPath(buf[:end]); len(path) > 1 && !bytes.HasPrefix(path, []byte("/service")) {
			var err error
			if reply, err = special(string(path), buf[:end+2], plain); err != nil {
				return
			}
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
		buf = buf[:copy(buf, buf[end+4:])]
	}
}

// requestPath returns the target of a request head.
func requestPath(head []byte) []byte {
	_, rest, ok := bytes.Cut(head, []byte{' '})
	if !ok {
		return nil
	}
	path, _, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return nil
	}
	return path
}

func special(path string, head, plain []byte) ([]byte, error) {
	if n, ok := argument(path, PathSize); ok {
		if n > maxBytes {
			return nil, io.ErrShortBuffer
		}
		return answer(n, ""), nil
	}
	if ms, ok := argument(path, PathDelay); ok {
		time.Sleep(time.Duration(min(ms, 60000)) * time.Millisecond)
		return plain, nil
	}
	if path == PathEcho {
		return answer(answerBytes, "x-seen: "+seen(head)+"\r\n"), nil
	}
	return plain, nil
}

func argument(path, prefix string) (int, bool) {
	if len(path) <= len(prefix) || path[:len(prefix)] != prefix {
		return 0, false
	}
	n, err := strconv.ParseUint(path[len(prefix):], 10, 31)
	return int(n), err == nil
}

// seen joins the values of SeenHeader in a head whose lines all end in CRLF.
func seen(head []byte) string {
	var values []byte
	for line := range bytes.Lines(head) {
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok || !bytes.EqualFold(name, []byte(SeenHeader)) {
			continue
		}
		if len(values) > 0 {
			values = append(values, ',')
		}
		values = append(values, bytes.TrimSpace(value)...)
	}
	return string(values)
}
