//go:build !race

package route

import (
	"testing"

	"sidecar/api/header"
)

func TestNoAllocations(t *testing.T) {
	table := compile(t, `
name: r
ignore_port_in_host_matching: true
request_headers_to_add: [{header: {key: x-table, value: "%REQ(:path)% %PROTOCOL%"}}]
virtual_hosts:
- name: v
  domains: ["*.test"]
  response_headers_to_add: [{header: {key: x-resp, value: "some constant that is longer than what fits on the stack"}}]
  routes:
  - {match: {path_separated_prefix: /no}, direct_response: {status: 200}}
  - {match: {safe_regex: {regex: "/no/[0-9]+"}}, direct_response: {status: 200}}
  - {match: {prefix: /, headers: [{name: x-n, range_match: {start: 1, end: 2}}]}, direct_response: {status: 200}}
  - {match: {prefix: /, query_parameters: [{name: b, string_match: {exact: "2"}}], cookies: [{name: s, string_match: {suffix: z}}]}, direct_response: {status: 200}}
  - match: {prefix: /a, case_sensitive: false, headers: [{name: user-agent, string_match: {contains: CURL, ignore_case: true}}]}
    route:
      prefix_rewrite: /other/
      append_x_forwarded_host: true
      weighted_clusters:
        clusters:
        - {name: one, weight: 1}
        - {name: two, weight: 9, host_rewrite_literal: h.test, request_headers_to_add: [{header: {key: x-two, value: "2"}, append: false}]}
`)
	big := large(t, 100)
	h := &header.Map{}
	r := &header.Map{}
	info := infoOf(h)
	run := func() {
		h.Reset()
		h.Add(":method", "GET")
		h.Add(":path", "/A/b/c?a=1&b=3")
		h.Add(":authority", "Host.TEST:8080")
		h.Add("x-forwarded-proto", "http")
		h.Add("user-agent", "curl/8")
		h.Add("x-n", "not a number")
		h.Add("cookie", "a=b; s=x")
		e := table.Match(h, info, 5)
		e.FinalizeRequest(h, info, true)
		r.Reset()
		r.Add(":status", "200")
		e.FinalizeResponse(r, info)
		if e.ClusterName() != "two" || e.Cluster(h) != "two" || e.FilterConfig("none") != nil {
			t.Fatalf("routed to %q", e.ClusterName())
		}
		h.SetStatic(header.Authority, "big.test")
		h.SetStatic(header.Path, "/api/v0/99/")
		if big.Match(h, info, 1).Name() != "99" {
			t.Fatal("wrong route")
		}
	}
	run()
	if n := testing.AllocsPerRun(500, run); n > 0 {
		t.Errorf("%v allocations a request, want none", n)
	}
}
