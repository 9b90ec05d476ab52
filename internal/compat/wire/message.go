package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Message is one request or response as it came over the wire.
type Message struct {
	Head     []string `json:"head,omitempty"` // start line, then the header lines
	Framing  Framing  `json:"framing,omitempty"`
	Body     string   `json:"body,omitempty"` // chunking removed: its boundaries are chance
	Trailers []string `json:"trailers,omitempty"`
	// Cut says that the message is incomplete, and why.
	Cut string `json:"cut,omitempty"`
}

// Framing says how the end of the body was marked.
type Framing string

// The framings. The zero value is for messages that can't have a body.
const (
	FramingNone       Framing = ""
	FramingLength     Framing = "content-length"
	FramingChunked    Framing = "chunked"
	FramingUntilClose Framing = "until-close"
)

// What a peer may send before it is cut off: far more than any case needs.
const (
	maxHeadBytes = 1 << 20
	maxBodyBytes = 64 << 20
)

var errTooLong = errors.New("message too long")

// ReadHead reads a start line and headers. The message holds what was read also on error.
func ReadHead(r *bufio.Reader) (Message, error) {
	var m Message
	size := 0
	for {
		line, err := r.ReadString('\n')
		size += len(line)
		if err != nil {
			if line != "" {
				m.Head = append(m.Head, line)
			}
			return m, cutError(err, len(m.Head) > 0)
		}
		if size > maxHeadBytes {
			return m, errTooLong
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" {
			return m, nil
		}
		m.Head = append(m.Head, line)
	}
}

// cutError turns an end of file in the middle of something into the unexpected one.
func cutError(err error, inside bool) error {
	if inside && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Header returns the value of the first header called name.
func (m *Message) Header(name string) (string, bool) {
	if len(m.Head) == 0 {
		return "", false
	}
	for _, line := range m.Head[1:] {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(key, name) {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

// Status returns the status code of a response.
func (m *Message) Status() (int, error) {
	if len(m.Head) == 0 {
		return 0, errors.New("no status line")
	}
	fields := strings.SplitN(m.Head[0], " ", 3)
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/1.") {
		return 0, fmt.Errorf("status line %q", m.Head[0])
	}
	code, err := strconv.Atoi(fields[1])
	if err != nil || code < 100 || code > 999 {
		return 0, fmt.Errorf("status line %q", m.Head[0])
	}
	return code, nil
}

// ReadRequestBody reads the body that belongs to the request head m.
func ReadRequestBody(r *bufio.Reader, m *Message) error {
	if te, ok := m.Header("transfer-encoding"); ok && strings.EqualFold(te, "chunked") {
		return readChunked(r, m)
	}
	if _, ok := m.Header("content-length"); ok {
		return readLength(r, m)
	}
	return nil
}

// ReadResponseBody reads the body that belongs to the response head m, given the request's method.
func ReadResponseBody(r *bufio.Reader, m *Message, method string) error {
	code, err := m.Status()
	if err != nil {
		return err
	}
	if method == "HEAD" || code < 200 || code == 204 || code == 304 {
		return nil
	}
	if method == "CONNECT" && code < 300 {
		return nil
	}
	if te, ok := m.Header("transfer-encoding"); ok && strings.EqualFold(te, "chunked") {
		return readChunked(r, m)
	}
	if _, ok := m.Header("content-length"); ok {
		return readLength(r, m)
	}
	m.Framing = FramingUntilClose
	body, err := io.ReadAll(io.LimitReader(r, maxBodyBytes))
	m.Body = string(body)
	return err
}

func readLength(r *bufio.Reader, m *Message) error {
	m.Framing = FramingLength
	value, _ := m.Header("content-length")
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return fmt.Errorf("content-length %q", value)
	}
	if n > maxBodyBytes {
		return errTooLong
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	m.Body = string(body)
	if err == nil && uint64(len(body)) < n {
		return io.ErrUnexpectedEOF
	}
	return err
}

func readChunked(r *bufio.Reader, m *Message) error {
	m.Framing = FramingChunked
	var body strings.Builder
	// Also on error: what came is part of what is compared.
	defer func() { m.Body = body.String() }()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return cutError(err, true)
		}
		size, _, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ";")
		n, err := strconv.ParseUint(size, 16, 62)
		if err != nil {
			return fmt.Errorf("chunk size %q", line)
		}
		if n == 0 {
			break
		}
		if n > maxBodyBytes || body.Len() > maxBodyBytes {
			return errTooLong
		}
		if _, err := io.CopyN(&body, r, int64(n)); err != nil {
			return cutError(err, true)
		}
		if line, err = r.ReadString('\n'); err != nil {
			return cutError(err, true)
		}
		if strings.TrimRight(line, "\r\n") != "" {
			return fmt.Errorf("%q after a chunk", line)
		}
	}
	trailers, err := ReadHead(r)
	m.Trailers = trailers.Head
	return cutError(err, true)
}
