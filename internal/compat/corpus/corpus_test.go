package corpus

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestText(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"head only", "GET / HTTP/1.1\nHost: a\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"body", "POST / HTTP/1.1\nContent-Length: 3\n\nx\ny\n", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nx\ny"},
		{"chunks keep their own line ends", "A\n\n1\r\nx\r\n0\r\n\r\n", "A\r\n\r\n1\r\nx\r\n0\r\n\r"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, Text(tt.in)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	e := Expander{"up.main": "81", "dir": "/d"}
	tests := []struct{ name, in, want, wantErr string }{
		{name: "table", in: "127.0.0.1:@up.main@ @dir@/x", want: "127.0.0.1:81 /d/x"},
		{name: "repeat", in: "<@rep:ab:3@>", want: "<ababab>"},
		{name: "repeat with colon", in: "@rep:a: b;:2@", want: "a: b;a: b;"},
		{name: "headers", in: "@headers:2@", want: "h0: v\r\nh1: v\r\n"},
		{name: "not a placeholder", in: "user@a.test", want: "user@a.test"},
		{name: "unknown", in: "@nope@", wantErr: "@nope@: no such placeholder"},
		{name: "too long", in: "@rep:a:99999999@", wantErr: "bad count"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := e.Expand(tt.in)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, wantErr string }{
		{"unknown field", "cases: [{name: a, gett: /}]", "unknown field"},
		{"no request", "cases: [{name: a}]", "0 of get, request"},
		{"two requests", "cases: [{name: a, get: /, raw: x}]", "2 of get, request"},
		{"same name", "cases: [{name: a, get: /}, {name: a, get: /}]", "used twice"},
		{"no such listener", "cases: [{name: a, get: /, listener: b}]", `listener "b"`},
		{"bad duration", "cases: [{name: a, get: /, within: soon}]", "invalid duration"},
		{"upstream twice", "cases: [{name: a, get: /, answers: [200], upstreams: {main: {}}}]", "given twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("g", []byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
		})
	}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	g, err := Parse("g", []byte(`
listeners: [{name: main, hcm: {via: x, access_log: null}, raw: {stat_prefix: other}}]
clusters: [{name: main}, {name: bad, hosts: [dead, other], raw: {connect_timeout: 1s}}]
cases: [{name: a, get: /}]`))
	if err != nil {
		t.Fatal(err)
	}
	data, err := g.Build(Expander{
		"admin": "1", "dir": "/d", "dead": "2", "listener.main": "3", "listener.fence": "4",
		"up.main": "5", "up.other": "6",
	})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		StaticResources struct {
			Listeners []struct {
				StatPrefix   string `json:"stat_prefix"`
				Address      map[string]map[string]any
				FilterChains []struct {
					Filters []struct {
						TypedConfig map[string]any `json:"typed_config"`
					}
				} `json:"filter_chains"`
			}
			Clusters []struct {
				ConnectTimeout string         `json:"connect_timeout"`
				LoadAssignment map[string]any `json:"load_assignment"`
			}
		} `json:"static_resources"`
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	l := got.StaticResources.Listeners[0]
	hcm := l.FilterChains[0].Filters[0].TypedConfig
	if l.StatPrefix != "other" || hcm["via"] != "x" || hcm["access_log"] != nil ||
		l.Address["socket_address"]["port_value"] != 3.0 {
		t.Errorf("listener: %+v", l)
	}
	bad, err := json.Marshal(got.StaticResources.Clusters[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"port_value":2`, `"port_value":6`, `"connect_timeout":"1s"`} {
		if !strings.Contains(string(bad), want) {
			t.Errorf("cluster has no %s: %s", want, bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("cases: [{name: a, get: /}]")
	f.Add("cases: [{name: a, steps: [read, {raw: x}, {wait: 1s}]}]")
	f.Add("cases: [{name: a, get: /, answers: [200, \"HTTP/1.1 200 OK\"]}]")
	f.Add("listeners: [{name: main, hcm: {a: {b: null}}}]\ncases: []")
	f.Add("clusters: [{name: x, raw: {load_assignment: 1}}]")
	f.Add("- not a map")
	f.Fuzz(func(_ *testing.T, in string) {
		g, err := Parse("g", []byte(in))
		if err != nil {
			return
		}
		_, _ = g.Build(Expander{})
		_ = g.UpstreamNames()
	})
}
