package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sidecar/internal/bench/load"
)

const wrkOutput = `Running 3s test @ http://127.0.0.1:1/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.51ms    1.20ms  19.93ms   88.11%
    Req/Sec     9.32k   509.16    10.35k    66.67%
  Latency Distribution
     50%    2.34ms
     75%    2.91ms
     90%    3.60ms
     99%    7.87ms
  27909 requests in 3.01s, 35.07MB read
Requests/sec:   9277.04
Transfer/sec:     11.66MB
`

func TestParseWrk(t *testing.T) {
	t.Parallel()
	got, err := parseWrk(wrkOutput)
	want := wrkResult{
		requests: 27909, rate: 9277.04,
		p50: 2340 * time.Microsecond, p99: 7870 * time.Microsecond,
	}
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for name, bad := range map[string]string{
		"errors":   wrkOutput + "  Socket errors: connect 0, read 1, write 0, timeout 0\n",
		"statuses": wrkOutput + "  Non-2xx or 3xx responses: 5\n",
		"nothing":  strings.Replace(wrkOutput, "27909", "0", 1),
		"other":    "unable to connect",
	} {
		if _, err := parseWrk(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSeries(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   series
		want float64
		text string
	}{
		{"none", nil, 0, "-"},
		{"odd", series{3, 1, 2}, 2, "2.00 [1.00, 3.00]"},
		{"even", series{4, 1, 2, 3}, 2.5, "2.50 [1.00, 4.00]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.in.median(); got != tt.want || tt.in.String() != tt.text {
				t.Errorf("%v %q, want %v %q", got, tt.in, tt.want, tt.text)
			}
		})
	}
	data := rounds{"a": {{"m": 2}, {"m": 9}}, "b": {{"m": 1}, {"m": 3}}}
	if got := data.ratio("a", "b", "m"); !cmp.Equal(got, series{2, 3}) {
		t.Errorf("ratio %v", got)
	}
	if got := data.difference("a", "b", "m"); !cmp.Equal(got, series{1, 6}) {
		t.Errorf("difference %v", got)
	}
}

// TestFiguresFail asserts that a missed target, and a bench that broke, count.
func TestFiguresFail(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	r := newReport(&out, false)
	r.atMost("b", "low enough", 1, "", "us", 2)
	r.atMost("b", "too high", 3, "", "us", 2)
	r.atLeast("b", "too low", 1, 2)
	r.fail("b", io.ErrUnexpectedEOF)
	if got := r.failed(); got != 3 {
		t.Errorf("%d failed, want 3:\n%s", got, &out)
	}
	for _, want := range []string{
		"PASS b: low enough: 1.00 us (target: at most 2.00)", "FAIL b: too high", "FAIL b: too low",
		"FAIL b: did not run: unexpected EOF",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

// TestUpdateDocument asserts that only the results between the marks are replaced.
func TestUpdateDocument(t *testing.T) {
	t.Parallel()
	r := newReport(io.Discard, false)
	r.Date, r.Machine = "2001-02-03", "2 cores, 24 GiB"
	r.atMost("b", "figure", 1, "1.00 [0.90, 1.10]", "us", 2)
	r.table("b", []string{"y", "x"}, rounds{"x": {{"m": 1}}, "y": {{"m": 2}}})
	path := filepath.Join(t.TempDir(), "doc.md")
	old := "# Title\n" + resultsBegin + "\nold\n" + resultsEnd + "\nrest\n"
	if err := os.WriteFile(path, []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.updateDocument(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "# Title\n" + resultsBegin + `
Measured on 2 cores, 24 GiB, 2001-02-03.

| Bench | Figure | Measured | Target | |
|---|---|---|---|---|
| b | figure | 1.00 [0.90, 1.10] us | ≤ 2.00 us | held |

b:

| | m |
|---|---|
| y | 2.00 [2.00, 2.00] |
| x | 1.00 [1.00, 1.00] |

` + resultsEnd + "\nrest\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if err := os.WriteFile(path, []byte("no marks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.updateDocument(path); err == nil {
		t.Error("a document without marks was taken")
	}
}

func TestAbsence(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	samples := []load.Sample{
		{Kind: 0, At: 0, Took: ms, Status: 200},
		{Kind: 1, At: 10 * ms, Took: 100 * ms, Status: 503},   // ends the VM at 110
		{Kind: 0, At: 50 * ms, Took: 60 * ms, Status: 200},    // was let through before that
		{Kind: 1, At: 200 * ms, Took: ms, Status: 503},        // finds no plugin
		{Kind: 0, At: 900 * ms, Took: ms, Status: 503},        //
		{Kind: 0, At: 1000 * ms, Took: ms, Status: 200},       // back after 890
		{Kind: 1, At: 1100 * ms, Took: 110 * ms, Status: 503}, // ends it again, at 1210
		{Kind: 1, At: 1500 * ms, Took: 110 * ms, Status: 503}, // was back after 290
	}
	kills, longest := absence(samples)
	if kills != 3 || longest != 890*ms {
		t.Errorf("%d kills, longest %v, want 3 and 890ms", kills, longest)
	}
}

// TestShapes asserts that both proxies get the same text but for what the ports and the folder say.
func TestShapes(t *testing.T) {
	t.Parallel()
	s := shape{plugin: "/p.wasm", version: "v1", clusters: 3}
	up := upstreamPorts{http: 2001, tcp: 2002}
	a, err := s.build(ports{1001, 1002, 1003}, "/dir-a", up)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.build(ports{1004, 1005, 1006}, "/dir-b", up)
	if err != nil {
		t.Fatal(err)
	}
	same := strings.NewReplacer("1001", "1004", "1002", "1005", "1003", "1006", "/dir-a", "/dir-b")
	if diff := cmp.Diff(same.Replace(string(a)), string(b)); diff != "" {
		t.Errorf("(-a +b)\n%s", diff)
	}
	var config struct {
		StaticResources struct {
			Clusters  []any
			Listeners []any
		} `json:"static_resources"`
	}
	if err := json.Unmarshal(a, &config); err != nil {
		t.Fatal(err)
	}
	if n := len(config.StaticResources.Clusters); n != 5 {
		t.Errorf("%d clusters, want 5", n)
	}
}

func TestSwapCheck(t *testing.T) {
	t.Parallel()
	ok := func() load.Response {
		return load.Response{Status: 200, Header: map[string][]string{
			"x-plugin-response": {"v1"}, "x-seen": {"v1"},
		}}
	}
	tests := []struct {
		name   string
		change func(*load.Response)
		want   string
	}{
		{"one version", func(*load.Response) {}, ""},
		{"status", func(r *load.Response) { r.Status = 503 }, "status 503"},
		{"close", func(r *load.Response) { r.Close = true }, "connection: close"},
		{"mixed", func(r *load.Response) { r.Header["x-seen"] = []string{"v2"} }, "versions"},
		{"none", func(r *load.Response) { delete(r.Header, "x-plugin-response") }, "versions"},
		{"two", func(r *load.Response) { r.Header["x-seen"] = []string{"v1", "v1"} }, "versions"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := swapRun{versions: map[string]int{}}
			resp := ok()
			tt.change(&resp)
			err := r.check(resp)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

const h2loadOutput = `
finished in 3.01s, 11064.00 req/s, 12.14MB/s
requests: 33192 total, 33256 started, 33192 done, 33192 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 33192 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 36.42MB (38188000) total, 1.02MB (1068000) headers (space savings 93.47%), 32.41MB (33988608) data
                     min         max         mean         sd        +/- sd
time for request:      610us     31.25ms      5.75ms      1.56ms    83.16%
time for connect:      110us      1.01ms       487us       300us    62.50%
`

func TestParseH2load(t *testing.T) {
	t.Parallel()
	got, err := parseH2load(h2loadOutput)
	want := h2loadResult{requests: 33192, rate: 11064, mean: 5750 * time.Microsecond}
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for name, bad := range map[string]string{
		"failed":  strings.Replace(h2loadOutput, "0 failed", "1 failed", 1),
		"partial": strings.Replace(h2loadOutput, "33192 succeeded", "33191 succeeded", 1),
		"nothing": strings.ReplaceAll(h2loadOutput, "33192", "0"),
		"other":   "Could not connect",
	} {
		if _, err := parseH2load(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestSecureShapes asserts that each kind of security is in the config that is to have it.
func TestSecureShapes(t *testing.T) {
	t.Parallel()
	ids, err := newIdentities(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		shape shape
		want  []string
	}{
		{"plaintext", shape{service: serviceHTTP2}, []string{"http2_protocol_options"}},
		{"secured", shape{security: secured, certs: ids}, []string{"DownstreamTlsContext", ids.server.key}},
		{"mutual", shape{security: mutual, certs: ids}, []string{"require_client_certificate", ids.ca}},
		{"secrets", shape{security: secured, secrets: true, certs: ids}, []string{secretFile}},
		{"peer", shape{peer: 7, certs: ids}, []string{"UpstreamTlsContext", ids.client.key}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			data, err := tt.shape.build(ports{1, 2, 3}, "/dir", upstreamPorts{})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(data), want) {
					t.Errorf("no %q in\n%s", want, data)
				}
			}
		})
	}
}
