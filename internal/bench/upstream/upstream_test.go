package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestServeHTTP(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { _ = ServeHTTP(l) }()
	tests := []struct {
		name, path, header string
		wantBytes          int
		wantSeen           string
	}{
		{"plain", "/", "", answerBytes, ""},
		{"service", "/service-3/x", "", answerBytes, ""},
		{"size", PathSize + "77", "", 77, ""},
		{"delay", PathDelay + "1", "", answerBytes, ""},
		{"echo", PathEcho, "X-Plugin-Request: a\r\nx-plugin-request: b\r\n", answerBytes, "a,b"},
		{"long head", "/", "x: " + strings.Repeat("y", 9000) + "\r\n", answerBytes, ""},
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	// One connection, all in one go: pipelined requests have to work too.
	var all strings.Builder
	for _, tt := range tests {
		all.WriteString("GET " + tt.path + " HTTP/1.1\r\nHost: a\r\n" + tt.header + "\r\n")
	}
	if _, err := io.WriteString(conn, all.String()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || len(body) != tt.wantBytes || resp.Header.Get("x-seen") != tt.wantSeen {
			t.Errorf("%s: %d bytes, seen %q, %v", tt.name, len(body), resp.Header.Get("x-seen"), err)
		}
	}
}

func TestServeEcho(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { _ = ServeEcho(l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "ping" {
		t.Errorf("%q, %v", buf, err)
	}
}

func FuzzHead(f *testing.F) {
	f.Add("GET / HTTP/1.1\r\nx-plugin-request: a\r\n")
	f.Add("GET /size/1 HTTP/1.1\r\n")
	f.Add(" ")
	f.Add("GET /size/99999999999999999999 HTTP/1.1\r\n:\r\n\n")
	f.Fuzz(func(_ *testing.T, head string) {
		_, _ = argument(string(requestPath([]byte(head))), PathSize)
		_ = seen([]byte(head))
	})
}
