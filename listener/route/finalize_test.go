package route

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidecar/api/header"
)

// lines renders a head without what every head has.
func lines(h *header.Map) []string {
	var out []string
	for i := range h.Len() {
		switch name, value := h.At(i); name {
		case ":method", ":scheme", "x-forwarded-proto", ":status":
		default:
			out = append(out, name+": "+value)
		}
	}
	return out
}

// What the rewrites want was seen on Envoy 1.40.
func TestFinalizeRequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		route string // match and action
		head  []string
		want  []string
	}{
		"nothing": {
			`match: {prefix: /}, route: {cluster: c}`,
			[]string{":path: /a?b", "x-a: 1"},
			[]string{":path: /a?b", ":authority: a.test", "x-a: 1"},
		},
		"prefix": {
			`match: {prefix: /w}, route: {cluster: c, prefix_rewrite: /rw}`,
			[]string{":path: /we?x"},
			[]string{":path: /rwe?x", ":authority: a.test", "x-envoy-original-path: /we?x"},
		},
		"prefix of a path without case": {
			`match: {path: /ci/, case_sensitive: false}, route: {cluster: c, prefix_rewrite: /x}`,
			[]string{":path: /CI/?x"},
			[]string{":path: /x?x", ":authority: a.test", "x-envoy-original-path: /CI/?x"},
		},
		"prefix of a separated prefix": {
			`match: {path_separated_prefix: /sep, case_sensitive: false}, route: {cluster: c, prefix_rewrite: /x}`,
			[]string{":path: /SEP/foo"},
			[]string{":path: /x/foo", ":authority: a.test", "x-envoy-original-path: /SEP/foo"},
		},
		"prefix of a regex is the whole path": {
			`match: {safe_regex: {regex: "/s.*x"}}, route: {cluster: c, prefix_rewrite: /x}`,
			[]string{":path: /sabcx?y=1x"},
			[]string{":path: /x?y=1x", ":authority: a.test", "x-envoy-original-path: /sabcx?y=1x"},
		},
		"regex with groups": {
			`match: {prefix: /rx/}, route: {cluster: c, regex_rewrite: {pattern: {regex: "^/rx/([a-z]+)/"}, substitution: '/\1\\\0-'}}`,
			[]string{":path: /rx/abc/def?q=/rx/z/"},
			[]string{":path: /abc\\/rx/abc/-def?q=/rx/z/", ":authority: a.test", "x-envoy-original-path: /rx/abc/def?q=/rx/z/"},
		},
		"regex that doesn't match": {
			`match: {prefix: /rx/}, route: {cluster: c, regex_rewrite: {pattern: {regex: "^/rx/([a-z]+)/"}, substitution: '/\1'}}`,
			[]string{":path: /rx/ABC"},
			[]string{":path: /rx/ABC", ":authority: a.test", "x-envoy-original-path: /rx/ABC"},
		},
		"regex that matches nothing everywhere": {
			`match: {prefix: /ry}, route: {cluster: c, regex_rewrite: {pattern: {regex: "x*"}, substitution: '-'}}`,
			[]string{":path: /ryxxaxb"},
			[]string{":path: -/-r-y-a-b-", ":authority: a.test", "x-envoy-original-path: /ryxxaxb"},
		},
		"regex with an empty result": {
			`match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: ".*"}, substitution: ''}}`,
			[]string{":path: /emp?q"},
			[]string{":path: /emp?q", ":authority: a.test"},
		},
		"path format": {
			`match: {prefix: /}, route: {cluster: c, path_rewrite: "/x%REQ(a)%%PATH(NQ)%"}`,
			[]string{":path: /pw/1?q=1", "a: 5"},
			[]string{":path: /x5/pw/1?q=1", ":authority: a.test", "a: 5", "x-envoy-original-path: /pw/1?q=1"},
		},
		"path format with a query": {
			`match: {prefix: /}, route: {cluster: c, path_rewrite: "%REQ(a)%"}`,
			[]string{":path: /pe?q", "a: /k?z"},
			[]string{":path: /k?z?q", ":authority: a.test", "a: /k?z", "x-envoy-original-path: /pe?q"},
		},
		"path format with an empty result": {
			`match: {prefix: /}, route: {cluster: c, path_rewrite: "%REQ(a)%"}`,
			[]string{":path: /pe?q"},
			[]string{":path: /pe?q", ":authority: a.test"},
		},
		"host literal": {
			`match: {prefix: /}, route: {cluster: c, host_rewrite_literal: h.test, append_x_forwarded_host: true}`,
			nil,
			[]string{":path: /", ":authority: h.test", "x-envoy-original-host: a.test", "x-forwarded-host: a.test"},
		},
		"forwarded host is not repeated": {
			`match: {prefix: /}, route: {cluster: c, host_rewrite_literal: h.test, append_x_forwarded_host: true}`,
			[]string{"x-forwarded-host: z,a.test"},
			[]string{":path: /", ":authority: h.test", "x-forwarded-host: z,a.test", "x-envoy-original-host: a.test"},
		},
		"forwarded host behind a blank is another": {
			`match: {prefix: /}, route: {cluster: c, host_rewrite_literal: h.test, append_x_forwarded_host: true}`,
			[]string{"x-forwarded-host: z, a.test"},
			[]string{":path: /", ":authority: h.test", "x-forwarded-host: z, a.test,a.test", "x-envoy-original-host: a.test"},
		},
		"host from a header": {
			`match: {prefix: /}, route: {cluster: c, host_rewrite_header: X-New}`,
			[]string{"x-new: n", "x-new: m"},
			[]string{":path: /", ":authority: n", "x-new: n", "x-new: m", "x-envoy-original-host: a.test"},
		},
		"host from a header that isn't there": {
			`match: {prefix: /}, route: {cluster: c, host_rewrite_header: X-New}`,
			nil,
			[]string{":path: /", ":authority: a.test"},
		},
		"host from an empty header": {
			`match: {prefix: /}, route: {cluster: c, host_rewrite_header: X-New}`,
			[]string{"x-new: "},
			[]string{":path: /", ":authority: a.test", "x-new: "},
		},
		"host from the path": {
			`match: {prefix: /}, route: {cluster: c, host_rewrite_path_regex: {pattern: {regex: "^/hr/(.+)$"}, substitution: '\1.t'}}`,
			[]string{":path: /hr/foo?z"},
			[]string{":path: /hr/foo?z", ":authority: foo.t", "x-envoy-original-host: a.test"},
		},
		"host from a path that doesn't match": {
			`match: {prefix: /}, route: {cluster: c, host_rewrite_path_regex: {pattern: {regex: "^/hr/(.+)$"}, substitution: '\1.t'}}`,
			[]string{":path: /hr"},
			[]string{":path: /hr", ":authority: /hr", "x-envoy-original-host: a.test"},
		},
		"host format": {
			`match: {prefix: /}, route: {cluster: c, host_rewrite: "h%REQ(a)%.t"}`,
			nil,
			[]string{":path: /", ":authority: h-.t", "x-envoy-original-host: a.test"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := compile(t, oneHost("- {"+c.route+"}"))
			h := head(c.head...)
			e := table.Match(h, infoOf(h), 0)
			if e == nil {
				t.Fatal("no route")
			}
			e.FinalizeRequest(h, infoOf(h), true)
			if d := cmp.Diff(c.want, lines(h)); d != "" {
				t.Errorf("head (-want +got):\n%s", d)
			}
		})
	}
}

func TestSuppressedOriginals(t *testing.T) {
	t.Parallel()
	table := compile(t, oneHost(`- {match: {prefix: /}, route: {cluster: c, prefix_rewrite: /x/, host_rewrite_literal: h}}`))
	h := head(":path: /a")
	table.Match(h, infoOf(h), 0).FinalizeRequest(h, infoOf(h), false)
	if d := cmp.Diff([]string{":path: /x/a", ":authority: h"}, lines(h)); d != "" {
		t.Errorf("head (-want +got):\n%s", d)
	}
}

// A filter may have shortened the path after the route was found.
func TestRewriteOfShortenedPath(t *testing.T) {
	t.Parallel()
	table := compile(t, oneHost(`- {match: {prefix: /long/prefix}, route: {cluster: c, prefix_rewrite: /x}}`))
	h := head(":path: /long/prefix/a")
	e := table.Match(h, infoOf(h), 0)
	h.SetID(header.Path, "/s")
	e.FinalizeRequest(h, infoOf(h), false)
	if got := h.Value(header.Path); got != "/x" {
		t.Errorf("got %q, want /x", got)
	}
}

const levelsYAML = `
name: r
%s
request_headers_to_add:
- {header: {key: x-lvl, value: global}}
- {header: {key: x-over, value: global}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
response_headers_to_add:
- {header: {key: x-lvl, value: global}}
virtual_hosts:
- name: v
  domains: ["*"]
  request_headers_to_add:
  - {header: {key: x-lvl, value: vhost}}
  - {header: {key: x-over, value: vhost}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
  response_headers_to_add:
  - {header: {key: x-lvl, value: vhost}}
  routes:
  - match: {prefix: /w}
    route:
      prefix_rewrite: /rw
      append_x_forwarded_host: true
      host_rewrite_literal: rh.test
      weighted_clusters:
        clusters:
        - name: up
          weight: 1
          request_headers_to_add:
          - {header: {key: x-lvl, value: wc}}
          - {header: {key: x-over, value: wc}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
          response_headers_to_add:
          - {header: {key: x-lvl, value: wc}}
          host_rewrite_literal: wc.test
    request_headers_to_remove: [x-rm]
    request_headers_to_add:
    - {header: {key: x-lvl, value: "route p=%%REQ(:path)%% h=%%REQ(:authority)%% rm=%%REQ(x-rm)%%"}}
    - {header: {key: x-over, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    - {header: {key: x-a, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
    - {header: {key: x-empty, value: "%%REQ(nope)%%"}, keep_empty_value: true}
    - {header: {key: x-empty2, value: "%%REQ(nope)%%"}}
    - {header: {key: x-lit, value: "a%%%%b"}}
    - {header: {key: x-oe, value: "%%REQ(x-a)%%"}, append_action: OVERWRITE_IF_EXISTS}
    - {header: {key: x-aia, value: "1"}, append_action: ADD_IF_ABSENT}
    - {header: {key: x-aia, value: "2"}, append_action: ADD_IF_ABSENT}
    response_headers_to_add:
    - {header: {key: x-lvl, value: "%%REQ(:path)%%"}}
    - {header: {key: x-a, value: resp}, append: false}
`

// The heads are those that Envoy 1.40 sent for the same configuration.
func TestLevels(t *testing.T) {
	t.Parallel()
	request := []string{":path: /we?x", "x-rm: 1", "x-a: 1", "x-b: 2", "x-oe: 1", "x-over: 0", "x-tail: t"}
	for name, c := range map[string]struct {
		option             string
		request, responses []string
	}{
		"table wins": {
			"",
			[]string{
				":path: /rwe?x", ":authority: rh.test", "x-b: 2", "x-tail: t", "x-lvl: wc", "x-a: new", "x-oe: 1",
				"x-lvl: route p=/we?x h=wc.test rm=", "x-empty: ", "x-lit: a%b", "x-aia: 1", "x-aia: 2",
				"x-lvl: vhost", "x-over: global", "x-lvl: global", "x-envoy-original-host: wc.test",
				"x-forwarded-host: wc.test", "x-envoy-original-path: /we?x",
			},
			[]string{"x-z: last", "x-lvl: wc", "x-a: resp", "x-lvl: /rwe?x", "x-lvl: vhost", "x-lvl: global"},
		},
		"route wins": {
			"most_specific_header_mutations_wins: true",
			[]string{
				":path: /rwe?x", ":authority: rh.test", "x-b: 2", "x-tail: t", "x-lvl: wc", "x-lvl: global",
				"x-lvl: vhost", "x-over: route", "x-a: new", "x-oe: 1", "x-lvl: route p=/we?x h=wc.test rm=",
				"x-empty: ", "x-lit: a%b", "x-aia: 1", "x-aia: 2", "x-envoy-original-host: wc.test",
				"x-forwarded-host: wc.test", "x-envoy-original-path: /we?x",
			},
			[]string{"x-z: last", "x-lvl: wc", "x-lvl: global", "x-lvl: vhost", "x-a: resp", "x-lvl: /rwe?x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := compile(t, strings.ReplaceAll(strings.Replace(levelsYAML, "%s", c.option, 1), "%%", "%"))
			h := head(request...)
			info := infoOf(h)
			e := table.Match(h, info, 0)
			e.FinalizeRequest(h, info, true)
			if d := cmp.Diff(c.request, lines(h)); d != "" {
				t.Errorf("request (-want +got):\n%s", d)
			}
			r := &header.Map{}
			r.Add(":status", "200")
			r.Add("x-a", "up")
			r.Add("x-z", "last")
			info.Response = r
			e.FinalizeResponse(r, info)
			if d := cmp.Diff(c.responses, lines(r)); d != "" {
				t.Errorf("response (-want +got):\n%s", d)
			}
		})
	}
}

// What locations want was seen on Envoy 1.40.
func TestLocation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		action string
		head   []string
		want   string
		path   string // of the request afterwards
	}{
		"nothing":                  {`redirect: {}`, []string{":path: /rh?q"}, "http://a.test/rh?q", "/rh?q"},
		"prefix, stripped":         {`redirect: {prefix_rewrite: /new, strip_query: true}`, []string{":path: /foo?q=1"}, "http://a.test/newfoo", "/newfoo?q=1"},
		"path with a query":        {`redirect: {path_redirect: "/new?x=1", port_redirect: 99}`, []string{":path: /foo?z", ":authority: a:80"}, "http://a:99/new?x=1", "/foo?z"},
		"path, query kept":         {`redirect: {path_redirect: /new, https_redirect: true}`, []string{":path: /?a=b", ":authority: [::1]:80"}, "https://[::1]/new?a=b", "/?a=b"},
		"path's query is not cut":  {`redirect: {path_redirect: "/new?x", strip_query: true}`, []string{":path: /?a"}, "http://a.test/new?x", "/?a"},
		"other port stays":         {`redirect: {https_redirect: true}`, []string{":authority: a:443"}, "https://a:443/", "/"},
		"default port goes":        {`redirect: {https_redirect: true}`, []string{":authority: a:80"}, "https://a/", "/"},
		"same scheme keeps port":   {`redirect: {}`, []string{":authority: h:443", "x-forwarded-proto: https", ":scheme: https"}, "https://h:443/", "/"},
		"down to http":             {`redirect: {scheme_redirect: http}`, []string{":authority: h:443", "x-forwarded-proto: https", ":scheme: https"}, "http://h/", "/"},
		"ipv6 without port":        {`redirect: {https_redirect: true}`, []string{":authority: [::80]"}, "https://[::80]/", "/"},
		"regex and host":           {`redirect: {regex_rewrite: {pattern: {regex: "/p3/(.*)"}, substitution: '/z/\1'}, host_redirect: o.test}`, []string{":path: /p3/foo?z=1"}, "http://o.test/z/foo?z=1", "/z/foo?z=1"},
		"regex, empty result":      {`redirect: {regex_rewrite: {pattern: {regex: ".*"}, substitution: ''}, host_redirect: o.t}`, []string{":path: /erd?q"}, "http://o.t/erd?q", "/erd?q"},
		"format":                   {`redirect: {path_rewrite: "/n%REQ(a)%"}`, []string{":path: /rq?q=1", "a: 2"}, "http://a.test/n2?q=1", "/n2?q=1"},
		"format, stripped":         {`redirect: {path_rewrite: "/n%REQ(a)%", strip_query: true}`, []string{":path: /rq?q=1", "a: 2"}, "http://a.test/n2", "/n2?q=1"},
		"format, empty result":     {`redirect: {path_rewrite: "%REQ(a)%", host_redirect: o.t}`, []string{":path: /re?q=1"}, "http://o.t/re?q=1", "/re?q=1"},
		"direct response":          {`direct_response: {status: 200}`, nil, "", "/"},
		"direct response, created": {`direct_response: {status: 201}`, []string{":path: /c?q"}, "http://a.test/c?q", "/c?q"},
		"direct response, 3xx":     {`direct_response: {status: 304}`, []string{":path: /c?q"}, "http://a.test/c?q", "/c?q"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := compile(t, oneHost("- {match: {prefix: /}, "+c.action+"}"))
			h := head(c.head...)
			before := h.Value(header.Path)
			info := infoOf(h)
			e := table.Match(h, info, 0)
			if got := e.Location(h, info, true); got != c.want {
				t.Errorf("location %q, want %q", got, c.want)
			}
			if got := h.Value(header.Path); got != c.path {
				t.Errorf("path is %q afterwards, want %q", got, c.path)
			}
			original := h.Value(header.XEnvoyOriginalPath)
			if changed := c.path != before; changed != (original == before) {
				t.Errorf("x-envoy-original-path is %q", original)
			}
		})
	}
}

func TestResponseBody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ action, body, contentType string }{
		"none":        {`{status: 200}`, "", ""},
		"empty":       {`{status: 200, body: {inline_string: ""}}`, "", ""},
		"inline":      {`{status: 200, body: {inline_string: hi}}`, "hi", ""},
		"bytes":       {`{status: 200, body: {inline_bytes: aGk=}}`, "hi", ""},
		"text format": {`{status: 200, body: {inline_string: BODY}, body_format: {text_format_source: {inline_string: "%REQ(:path)% %LOCAL_REPLY_BODY% %RESPONSE_CODE%"}, content_type: text/x}}`, "/ BODY 0", "text/x"},
		"json format": {`{status: 200, body_format: {json_format: {p: "%REQ(:path)%", b: "%LOCAL_REPLY_BODY%", nn: "%REQ(nope)%"}}}`, `{"b":"","nn":null,"p":"/"}` + "\n", "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := compile(t, oneHost("- {match: {prefix: /}, direct_response: "+c.action+"}"))
			h := head()
			info := infoOf(h)
			e := table.Match(h, info, 0)
			if got := e.ResponseBody(info); got != c.body || e.ContentType != c.contentType {
				t.Errorf("got %q (%q), want %q (%q)", got, e.ContentType, c.body, c.contentType)
			}
		})
	}
}
