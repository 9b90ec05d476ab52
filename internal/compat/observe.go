package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/compat/play"
	"sidecar/internal/compat/wire"
)

// observation is all that is compared of a case, free of chance.
type observation struct {
	play.Result
	Log   []string         `json:"log,omitempty"`
	Stats map[string]int64 `json:"stats,omitempty"` // what a case added to each
}

// normaliser replaces what differs from run to run by a name for it. Each replacement is for one
// kind of value and checks its form: a date that isn't one stays and shows up as a difference.
type normaliser struct {
	ports map[string]string // the port's number to its name
	hosts map[string]bool   // addresses of this machine
	dir   string
}

func newNormaliser(table map[string]string) (*normaliser, error) {
	n := &normaliser{ports: map[string]string{}, hosts: map[string]bool{}, dir: table["dir"]}
	for name, value := range table {
		if name != "dir" {
			n.ports[value] = name
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() {
			n.hosts[ip.IP.String()] = true
		}
	}
	return n, nil
}

var (
	portPattern    = regexp.MustCompile(`\b(127\.0\.0\.[0-9]+|localhost|\[::1\]):([0-9]{4,5})\b`)
	addressPattern = regexp.MustCompile(`\b[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\b`)
	uuidPattern    = regexp.MustCompile(
		`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)
	barePort    = regexp.MustCompile(`\b[0-9]{5}\b`)
	datePattern = regexp.MustCompile(
		`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-3][0-9] [A-Z][a-z]{2} [0-9]{4} [0-2][0-9]:[0-5][0-9]:[0-6][0-9] GMT`)
	digestPattern = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	timePattern   = regexp.MustCompile(`\b20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9:.]+Z`)
)

// text normalises addresses, ids and times wherever they stand.
func (n *normaliser) text(s string) string {
	s = portPattern.ReplaceAllStringFunc(s, func(m string) string {
		i := strings.LastIndexByte(m, ':')
		name, ok := n.ports[m[i+1:]]
		if !ok {
			name = "port"
		}
		return m[:i] + ":<" + name + ">"
	})
	s = barePort.ReplaceAllStringFunc(s, func(m string) string {
		if name, ok := n.ports[m]; ok {
			return "<" + name + ">"
		}
		return m
	})
	s = addressPattern.ReplaceAllStringFunc(s, func(m string) string {
		if n.hosts[m] {
			return "<local address>"
		}
		return m
	})
	s = datePattern.ReplaceAllString(s, "<date>")
	s = uuidPattern.ReplaceAllString(s, "<uuid>")
	s = digestPattern.ReplaceAllString(s, "<SHA-256>")
	return timePattern.ReplaceAllString(s, "<time>")
}

// header normalises one header line.
func (n *normaliser) header(line string) string {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return printable(n.text(line))
	}
	value = strings.TrimPrefix(value, " ")
	if strings.EqualFold(name, "x-envoy-upstream-service-time") {
		if _, err := strconv.ParseUint(value, 10, 32); err == nil {
			return name + ": <ms>"
		}
	}
	return printable(n.text(line))
}

const maxShownBody = 300

// printable keeps goldens readable: long or binary text is shown by length and digest, or quoted.
func printable(s string) string {
	if len(s) > maxShownBody {
		sum := sha256.Sum256([]byte(s))
		return fmt.Sprintf("<%d bytes, SHA-256 %s>", len(s), hex.EncodeToString(sum[:8]))
	}
	return quoted(s)
}

// quoted is text as it is, anything else quoted.
func quoted(s string) string {
	plain := utf8.ValidString(s)
	for _, r := range s {
		if r < ' ' && r != '\n' || r == 0x7f {
			plain = false
		}
	}
	if plain {
		return s
	}
	return strconv.QuoteToASCII(s)
}

func (n *normaliser) message(m *wire.Message, whole bool) {
	m.Head = slices.Clone(m.Head)
	for i := range m.Head {
		m.Head[i] = n.header(m.Head[i])
	}
	for i := range m.Trailers {
		m.Trailers[i] = n.header(m.Trailers[i])
	}
	if whole {
		m.Body = n.text(m.Body)
		return
	}
	m.Body = printable(n.text(m.Body))
}

// lowerNames makes header names small: whoever asks the admin interface takes them as they come.
func lowerNames(head []string) {
	for i, line := range head {
		if name, value, ok := strings.Cut(line, ":"); ok && i > 0 {
			head[i] = strings.ToLower(name) + ":" + value
		}
	}
}

// remainingTimeout hides the timeout that a later request announces: for a retry it is what is left
// of the first one's.
func remainingTimeout(m *wire.Message) {
	const name = "x-envoy-expected-rq-timeout-ms: "
	for i, line := range m.Head {
		if value, ok := strings.CutPrefix(line, name); ok {
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				m.Head[i] = name + "<what is left>"
			}
		}
	}
}

func (n *normaliser) observation(c *corpus.Case, r *play.Result, log []string, stats map[string]int64) *observation {
	out := &observation{Result: *r, Stats: stats}
	for i := range out.Clients {
		client := &out.Clients[i]
		for j := range client.Responses {
			n.message(&client.Responses[j], c.WholeBody)
			if c.Listener == corpus.Admin {
				lowerNames(client.Responses[j].Head)
			}
		}
		client.Data = printable(n.text(client.Data))
	}
	for _, name := range slices.Sorted(maps.Keys(out.Upstreams)) {
		// A connection that was opened and never used says nothing: a proxy may well have begun to
		// connect when it saw that the request is bad. The statistics still count it.
		out.Upstreams[name] = slices.DeleteFunc(out.Upstreams[name], func(c play.Connection) bool {
			return len(c.Requests) == 0 && c.Data == ""
		})
		if len(out.Upstreams[name]) == 0 {
			delete(out.Upstreams, name)
		}
		for i := range out.Upstreams[name] {
			conn := &out.Upstreams[name][i]
			for j := range conn.Requests {
				n.message(&conn.Requests[j], false)
				if i+j > 0 {
					remainingTimeout(&conn.Requests[j])
				}
			}
			conn.Data = printable(n.text(conn.Data))
		}
	}
	for _, line := range log {
		out.Log = append(out.Log, quoted(n.text(line)))
	}
	return out
}
