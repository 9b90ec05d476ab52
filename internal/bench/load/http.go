package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Response is what a client looks at in an answer.
type Response struct {
	Status int
	Header map[string][]string // names in lower case
	Body   int                 // bytes
	Close  bool                // the server said that it closes
}

// Client is one HTTP/1.1 keep-alive connection. It isn't for concurrent use.
type Client struct {
	conn net.Conn
	r    *bufio.Reader
}

// Dial connects.
func Dial(address string) (*Client, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, r: bufio.NewReaderSize(conn, 4096)}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Request formats a GET.
func Request(path string, headers ...string) string {
	var b strings.Builder
	b.WriteString("GET " + path + " HTTP/1.1\r\nHost: bench.test\r\n")
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// Do sends a formatted request and reads the answer.
func (c *Client) Do(request string, within time.Duration) (Response, error) {
	if err := c.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return Response{}, err
	}
	if _, err := io.WriteString(c.conn, request); err != nil {
		return Response{}, err
	}
	return c.read()
}

func (c *Client) read() (Response, error) {
	line, err := c.line()
	if err != nil {
		return Response{}, err
	}
	if len(line) < 12 || !strings.HasPrefix(line, "HTTP/1.1 ") {
		return Response{}, fmt.Errorf("status line %q", line)
	}
	resp := Response{Header: map[string][]string{}}
	if resp.Status, err = strconv.Atoi(line[9:12]); err != nil {
		return resp, fmt.Errorf("status line %q", line)
	}
	for {
		line, err := c.line()
		if err != nil {
			return resp, err
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return resp, fmt.Errorf("header line %q", line)
		}
		name = strings.ToLower(name)
		resp.Header[name] = append(resp.Header[name], strings.TrimSpace(value))
	}
	for _, v := range resp.Header["connection"] {
		resp.Close = resp.Close || strings.EqualFold(v, "close")
	}
	length := resp.Header["content-length"]
	if len(length) != 1 {
		return resp, errors.New("no content-length")
	}
	n, err := strconv.Atoi(length[0])
	if err != nil {
		return resp, fmt.Errorf("content-length %q", length[0])
	}
	resp.Body, err = c.r.Discard(n)
	return resp, err
}

func (c *Client) line() (string, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		if line != "" && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}
