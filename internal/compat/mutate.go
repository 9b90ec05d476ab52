package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"sidecar/internal/compat/corpus"
)

// mutateAll damages what the clients of single-request cases send and plays the result to both
// proxies live: where the two disagree about a message, one of them is wrong, and a chain of both is
// a smuggling hole. Statistics and log lines stay out of it. Each difference is printed with the bytes
// that show it, ready to become a case.
func (s *session) mutateAll(ctx context.Context, groups []*corpus.Group) (int, error) {
	if s.want == nil {
		return 0, errors.New("-mutate needs Envoy and the sidecar, both live")
	}
	s.ignore[kindStats], s.ignore[kindLog] = true, true
	rng := rand.New(rand.NewPCG(s.seed, 0))
	var chosen []*corpus.Group
	for _, g := range groups {
		if g = s.damageable(g); len(g.Cases) > 0 {
			chosen = append(chosen, g)
		}
	}
	if len(chosen) == 0 {
		return 0, errors.New("-mutate: no case of one client with one message")
	}
	done := 0
	for done < s.mutate && ctx.Err() == nil {
		g := chosen[rng.IntN(len(chosen))]
		n := min(200, s.mutate-done)
		results, err := s.playGroup(ctx, damaged(rng, g, n))
		if err != nil {
			return 0, err
		}
		done += n
		for _, r := range results {
			s.count(r)
		}
	}
	s.summary()
	if s.report.Different+s.report.Failed > 0 {
		return 1, nil
	}
	return 0, ctx.Err()
}

// damageable keeps the cases of a group that are one client, one message, and no script upstream.
func (s *session) damageable(g *corpus.Group) *corpus.Group {
	out := *g
	out.Cases = nil
	for _, c := range g.Cases {
		simple := len(c.Clients) == 1 && len(c.Clients[0]) == 2 && c.Clients[0][1].Read == 1 &&
			len(c.Upstreams) == 0 && c.Listener != corpus.Admin
		if simple && s.run.MatchString(g.Describe(&c)) {
			out.Cases = append(out.Cases, c)
		}
	}
	return &out
}

// damaged makes n cases out of those of g.
func damaged(rng *rand.Rand, g *corpus.Group, n int) *corpus.Group {
	out := *g
	out.Cases = nil
	for i := range n {
		c := g.Cases[rng.IntN(len(g.Cases))]
		text := c.Clients[0][0].Raw
		if text == "" {
			text = corpus.Text(c.Clients[0][0].Send)
		}
		// Placeholders are left alone: what they stand for is long.
		if !strings.Contains(text, "@") {
			for range 1 + rng.IntN(2) {
				text = damage(rng, text)
			}
		}
		c.Name = fmt.Sprintf("%s#%d %.300q", c.Name, i, text)
		c.Clients = [][]corpus.Step{{{Raw: text}, {Read: 1}}}
		// A damaged message may be an incomplete one: no answer is an answer too, but a quick one.
		c.Within = corpus.Duration(quietWithin / 10)
		out.Cases = append(out.Cases, c)
	}
	return &out
}

// pieces are what parsers of HTTP/1 disagree about.
var pieces = []string{
	"\r", "\n", "\r\n", "\r\n\r\n", "\n\n", " ", "\t", "\x00", "\x0b", "\x0c", "\x1f", "\x7f", "\x80", "\xff",
	":", ";", ",", "/", "//", "?", "#", "%", "%00", "%2f", "\\", "\"", "*", "@", "+", "-", "0", "_",
	"HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "http://", "GET ", "CONNECT ", "Host: b\r\n",
	"Content-Length: 0\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
	"Transfer-Encoding: identity\r\n", "Connection: close\r\n", "Connection: Host\r\n",
	"Upgrade: websocket\r\n", "Expect: 100-continue\r\n", "TE: trailers\r\n", "X: y\r\n z\r\n",
}

// damage changes one thing.
func damage(rng *rand.Rand, s string) string {
	at := rng.IntN(len(s) + 1)
	switch rng.IntN(6) {
	case 0: // insert a byte
		return s[:at] + string([]byte{byte(rng.IntN(256))}) + s[at:]
	case 1: // insert a piece
		return s[:at] + pieces[rng.IntN(len(pieces))] + s[at:]
	case 2: // insert a piece where a line starts
		lines := strings.SplitAfter(s, "\n")
		i := rng.IntN(len(lines))
		lines[i] = pieces[rng.IntN(len(pieces))] + lines[i]
		return strings.Join(lines, "")
	case 3: // leave out a few bytes
		end := min(len(s), at+1+rng.IntN(3))
		return s[:at] + s[end:]
	case 4: // a line twice
		lines := strings.SplitAfter(s, "\n")
		i := rng.IntN(len(lines))
		lines[i] += lines[i]
		return strings.Join(lines, "")
	}
	if at == len(s) {
		return s
	}
	return s[:at] + string([]byte{byte(rng.IntN(256))}) + s[at+1:]
}
