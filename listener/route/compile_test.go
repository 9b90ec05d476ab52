package route

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
)

func testEnv() Env {
	return Env{}
}

func parse(tb testing.TB, yaml string) *routev3.RouteConfiguration {
	tb.Helper()
	m := &routev3.RouteConfiguration{}
	if _, err := config.Parse("rc", config.YAML, []byte(yaml), m, config.RejectUnknown); err != nil {
		tb.Fatalf("parse: %v", err)
	}
	return m
}

func compile(tb testing.TB, yaml string) *Table {
	tb.Helper()
	return compileEnv(tb, yaml, testEnv())
}

func compileEnv(tb testing.TB, yaml string, env Env) *Table {
	tb.Helper()
	table, err := Compile(parse(tb, yaml), env)
	if err != nil {
		tb.Fatalf("Compile: %v", err)
	}
	return table
}

// head makes a request head of "name: value" lines over defaults.
func head(lines ...string) *header.Map {
	h := &header.Map{}
	h.Add(":method", "GET")
	h.Add(":path", "/")
	h.Add(":authority", "a.test")
	h.Add(":scheme", "http")
	h.Add("x-forwarded-proto", "http")
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		if strings.HasPrefix(name, ":") || name == "x-forwarded-proto" {
			h.Set(name, value)
		} else {
			h.Add(name, value)
		}
	}
	return h
}

func infoOf(h *header.Map) *stream.Info {
	return &stream.Info{Request: h, Conn: &stream.ConnInfo{}}
}

// route finds the name of the route of a request; "-" if there is none.
func route(table *Table, lines ...string) string {
	h := head(lines...)
	e := table.Match(h, infoOf(h), 0)
	if e == nil {
		return "-"
	}
	return e.Name()
}

// oneHost makes a table of one virtual host with these routes.
func oneHost(routes string) string {
	return "name: r\nvirtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n" + indent(routes, "  ")
}

func indent(s, by string) string {
	return by + strings.ReplaceAll(strings.Trim(s, "\n"), "\n", "\n"+by)
}

func filterState(key, value string) map[string]stream.FilterObject {
	return map[string]stream.FilterObject{key: {Value: value}}
}

func marshal(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
