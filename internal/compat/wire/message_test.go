package wire

import (
	"bufio"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadResponse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, method, in string
		want             Message
		wantErr          string
	}{
		{
			name: "length", in: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore",
			want: Message{
				Head:    []string{"HTTP/1.1 200 OK", "Content-Length: 2"},
				Framing: FramingLength, Body: "ok",
			},
		},
		{
			name: "chunked with trailer",
			in:   "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n1;x=y\r\n!\r\n0\r\nt: 1\r\n\r\n",
			want: Message{
				Head:    []string{"HTTP/1.1 200 OK", "transfer-encoding: chunked"},
				Framing: FramingChunked, Body: "ok!", Trailers: []string{"t: 1"},
			},
		},
		{
			name: "until close", in: "HTTP/1.1 200 OK\r\n\r\nrest",
			want: Message{Head: []string{"HTTP/1.1 200 OK"}, Framing: FramingUntilClose, Body: "rest"},
		},
		{
			name: "head", method: "HEAD", in: "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
			want: Message{Head: []string{"HTTP/1.1 200 OK", "content-length: 2"}},
		},
		{
			name: "cut body", in: "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", wantErr: "unexpected EOF",
			want: Message{
				Head:    []string{"HTTP/1.1 200 OK", "content-length: 9"},
				Framing: FramingLength, Body: "ok",
			},
		},
		{
			name: "cut chunk", in: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nok",
			wantErr: "unexpected EOF",
			want: Message{
				Head:    []string{"HTTP/1.1 200 OK", "transfer-encoding: chunked"},
				Framing: FramingChunked, Body: "ok",
			},
		},
		{
			name: "not HTTP", in: "hello\r\n\r\n", wantErr: `status line "hello"`,
			want: Message{Head: []string{"hello"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := bufio.NewReader(strings.NewReader(tt.in))
			got, err := ReadHead(r)
			if err == nil {
				err = ReadResponseBody(r, &got, tt.method)
			}
			if text := errText(err); text != tt.wantErr {
				t.Errorf("error %q, want %q", text, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzReadMessage(f *testing.F) {
	for _, seed := range []string{
		"", "\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\ncontent-length: 1\n\nx",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffff\r\n",
		"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\n",
		"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", "HTTP/1.1 abc\r\n\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r := bufio.NewReader(strings.NewReader(in))
		m, err := ReadHead(r)
		if err != nil {
			return
		}
		request := m
		if err := ReadResponseBody(r, &m, "GET"); err == nil && len(m.Body) > len(in) {
			t.Errorf("body of %d bytes from %d", len(m.Body), len(in))
		}
		_ = ReadRequestBody(bufio.NewReader(strings.NewReader(in)), &request)
	})
}
