package play

import (
	"context"
	"net"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/compat/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPlay connects clients straight to the upstream: what one records the other must have sent.
func TestPlay(t *testing.T) {
	t.Parallel()
	request := wire.Message{Head: []string{"GET /x HTTP/1.1", "Host: a.test"}}
	ok := wire.Message{
		Head: []string{"HTTP/1.1 200 OK", "content-length: 2"}, Framing: wire.FramingLength, Body: "ok",
	}
	tests := []struct {
		name, yaml string
		want       Result
	}{
		{
			name: "default answer", yaml: `
get: /x
upstream: [[answer, hold]]`,
			want: Result{
				Clients:   []Client{{Responses: []wire.Message{ok}, End: EndOpen}},
				Upstreams: map[string][]Connection{"main": {{Requests: []wire.Message{request}, End: EndClosed}}},
			},
		},
		{
			name: "script closes in the body", yaml: `
get: /x
upstream: [[{raw: "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe"}, close]]`,
			want: Result{
				Clients: []Client{{
					Responses: []wire.Message{{
						Head:    []string{"HTTP/1.1 200 OK", "content-length: 5"},
						Framing: wire.FramingLength, Body: "he", Cut: "closed",
					}},
					Failure: "step 1: closed", End: EndClosed,
				}},
				Upstreams: map[string][]Connection{"main": {{Requests: []wire.Message{request}, End: EndHere}}},
			},
		},
		{
			name: "raw both ways", yaml: `
steps: [{raw: ping}, {data: 4}, close]
upstream: [[now, {data: 4}, {raw: pong}, hold]]`,
			want: Result{
				Clients:   []Client{{Data: "pong", End: EndHere}},
				Upstreams: map[string][]Connection{"main": {{Data: "ping", End: EndClosed}}},
			},
		},
		{
			name: "clients wait for each other", yaml: `
clients:
- [{await: second}, {raw: "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n"}, read]
- [{signal: second}, {wait: 1ms}, close]`,
			want: Result{
				Clients: []Client{{Responses: []wire.Message{ok}, End: EndOpen}, {End: EndHere}},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g, err := corpus.Parse("g", []byte("cases:\n- name: c"+indent(tt.yaml)))
			if err != nil {
				t.Fatal(err)
			}
			stage, err := NewStage([]string{"main"})
			if err != nil {
				t.Fatal(err)
			}
			defer stage.Close()
			stage.SetExpander(corpus.Expander{})
			got, err := stage.Play(context.Background(), &g.Cases[0], address(stage))
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.Upstreams == nil {
				got.Upstreams = nil
			}
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func indent(s string) string {
	out := "\n  "
	for _, r := range s {
		out += string(r)
		if r == '\n' {
			out += "  "
		}
	}
	return out
}

func address(s *Stage) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Ports()["main"]))
}

// TestStageCloses asserts that a connection nobody scripted for doesn't keep a stage open.
func TestStageCloses(t *testing.T) {
	t.Parallel()
	stage, err := NewStage([]string{"main"})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", address(stage))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := stage.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("the connection is open after Close: %v", err)
	}
}
