package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sidecar/internal/compat/wire"
)

// slot is a named part of an observation: a list of lines that is compared as a whole.
type slot struct {
	name  string
	lines []string
}

// The first word of a slot's name; -ignore takes them.
const (
	kindClient   = "client"
	kindUpstream = "upstream"
	kindLog      = "log"
	kindStats    = "stats"
)

func (o *observation) slots() []slot {
	var out []slot
	add := func(name string, lines ...string) {
		lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
		if len(lines) > 0 {
			out = append(out, slot{name, lines})
		}
	}
	for i, c := range o.Clients {
		prefix := fmt.Sprintf("%s %d", kindClient, i)
		for j := range c.Responses {
			addMessage(add, fmt.Sprintf("%s response %d", prefix, j), &c.Responses[j])
		}
		add(prefix+" data", c.Data)
		add(prefix+" end", c.End)
		add(prefix+" failure", c.Failure)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Upstreams)) {
		for i, c := range o.Upstreams[name] {
			prefix := fmt.Sprintf("%s %s connection %d", kindUpstream, name, i)
			for j := range c.Requests {
				addMessage(add, fmt.Sprintf("%s request %d", prefix, j), &c.Requests[j])
			}
			add(prefix+" data", c.Data)
			add(prefix+" end", c.End)
		}
	}
	add(kindLog, slices.Clone(o.Log)...)
	stats := make([]string, 0, len(o.Stats))
	for _, name := range slices.Sorted(maps.Keys(o.Stats)) {
		stats = append(stats, fmt.Sprintf("%s %+d", name, o.Stats[name]))
	}
	add(kindStats, stats...)
	return out
}

func addMessage(add func(string, ...string), name string, m *wire.Message) {
	add(name+" head", slices.Clone(m.Head)...)
	add(name+" framing", string(m.Framing))
	add(name+" body", m.Body)
	add(name+" trailers", slices.Clone(m.Trailers)...)
	add(name+" cut", m.Cut)
}

// difference is one line that only one side has, or a slot whose lines are in another order.
type difference struct {
	Slot string `json:"slot"`
	Sign string `json:"sign"` // - only Envoy's, + only ours, ~ same lines in another order
	Text string `json:"text"`
}

func (d difference) String() string {
	if d.Sign == signOrder {
		return fmt.Sprintf("~ %s: %s", d.Slot, d.Text)
	}
	return fmt.Sprintf("%s %s: %s", d.Sign, d.Slot, d.Text)
}

const (
	signWant  = "-"
	signGot   = "+"
	signOrder = "~"
)

// compare lists what differs between Envoy's observation and ours.
func compare(want, got *observation) []difference {
	wants, gots := want.slots(), got.slots()
	byName := map[string][]string{}
	for _, s := range gots {
		byName[s.name] = s.lines
	}
	var out []difference
	seen := map[string]bool{}
	for _, s := range wants {
		seen[s.name] = true
		out = append(out, compareLines(s.name, s.lines, byName[s.name])...)
	}
	for _, s := range gots {
		if !seen[s.name] {
			out = append(out, compareLines(s.name, nil, s.lines)...)
		}
	}
	return out
}

func compareLines(name string, want, got []string) []difference {
	if slices.Equal(want, got) {
		return nil
	}
	count := map[string]int{}
	for _, l := range got {
		count[l]++
	}
	var out []difference
	for _, l := range want {
		if count[l] > 0 {
			count[l]--
			continue
		}
		out = append(out, difference{name, signWant, l})
	}
	for _, l := range got {
		if count[l] > 0 {
			count[l]--
			out = append(out, difference{name, signGot, l})
		}
	}
	if len(out) > 0 {
		return out
	}
	if !slices.Equal(byHeader(want), byHeader(got)) {
		return []difference{
			{name, signWant, "values of one header in the order " + strings.Join(want, " | ")},
			{name, signGot, "values of one header in the order " + strings.Join(got, " | ")},
		}
	}
	return []difference{{name, signOrder, headerNames(want) + " became " + headerNames(got)}}
}

// byHeader sorts header lines by name and keeps the order of equal names, which has a meaning.
func byHeader(lines []string) []string {
	out := slices.Clone(lines)
	slices.SortStableFunc(out, func(a, b string) int {
		return strings.Compare(headerName(a), headerName(b))
	})
	return out
}

func headerName(line string) string {
	name, _, _ := strings.Cut(line, ":")
	return strings.ToLower(name)
}

func headerNames(lines []string) string {
	names := make([]string, len(lines))
	for i, l := range lines {
		names[i] = headerName(l)
	}
	return strings.Join(names, " ")
}
