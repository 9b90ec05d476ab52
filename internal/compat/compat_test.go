package main

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/compat/play"
	"sidecar/internal/compat/wire"
)

const testData = "../../testdata/compat"

// TestCorpusIsRecorded fails when a case was added without recording what Envoy does in it, and for
// records that no case has any more.
func TestCorpusIsRecorded(t *testing.T) {
	t.Parallel()
	groups, err := corpus.Load(filepath.Join(testData, "cases"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range groups {
		records, err := readGolden(testData, g.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		for i := range g.Cases {
			n++
			if records[g.Cases[i].Name] == nil {
				t.Errorf("%s is not recorded: go run ./internal/compat -record -run %s",
					g.Describe(&g.Cases[i]), g.Name)
			}
			delete(records, g.Cases[i].Name)
		}
		for name := range records {
			t.Errorf("%s/%s is recorded and no case", g.Name, name)
		}
	}
	configs, err := corpus.LoadConfigs(filepath.Join(testData, "validate"))
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := readVerdicts(testData)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs {
		n++
		if _, ok := verdicts[c.Name]; !ok {
			t.Errorf("validate/%s is not recorded: go run ./internal/compat -record -run validate", c.Name)
		}
	}
	if n < 150 {
		t.Errorf("only %d cases were found", n)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	base := func() *observation {
		return &observation{
			Result: play.Result{
				Clients: []play.Client{{Responses: []wire.Message{{
					Head: []string{"HTTP/1.1 200 OK", "a: 1", "b: 2", "a: 3"}, Body: "x",
				}}, End: play.EndOpen}},
				Upstreams: map[string][]play.Connection{"main": {{End: play.EndClosed}}},
			},
			Log:   []string{"line"},
			Stats: map[string]int64{"s": 1},
		}
	}
	tests := []struct {
		name   string
		change func(*observation)
		want   []string
	}{
		{"equal", func(*observation) {}, nil},
		{"status", func(o *observation) { o.Clients[0].Responses[0].Head[0] = "HTTP/1.1 500 No" }, []string{
			"- client 0 response 0 head: HTTP/1.1 200 OK", "+ client 0 response 0 head: HTTP/1.1 500 No",
		}},
		{"other headers swapped", func(o *observation) {
			h := o.Clients[0].Responses[0].Head
			h[1], h[2] = h[2], h[1]
		}, []string{"~ client 0 response 0 head: http/1.1 200 ok a b a became http/1.1 200 ok b a a"}},
		{"values of one header swapped", func(o *observation) {
			h := o.Clients[0].Responses[0].Head
			h[1], h[3] = h[3], h[1]
		}, []string{
			"- client 0 response 0 head: values of one header in the order HTTP/1.1 200 OK | a: 1 | b: 2 | a: 3",
			"+ client 0 response 0 head: values of one header in the order HTTP/1.1 200 OK | a: 3 | b: 2 | a: 1",
		}},
		{"body gone", func(o *observation) { o.Clients[0].Responses[0].Body = "" }, []string{
			"- client 0 response 0 body: x",
		}},
		{"another upstream connection", func(o *observation) {
			o.Upstreams["main"] = append(o.Upstreams["main"], play.Connection{End: play.EndOpen})
		}, []string{"+ upstream main connection 1 end: open"}},
		{"stat", func(o *observation) { o.Stats["s"] = 2 }, []string{"- stats: s +1", "+ stats: s +2"}},
		{"second log line", func(o *observation) { o.Log = append(o.Log, "line") }, []string{"+ log: line"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := base()
			tt.change(got)
			var lines []string
			for _, d := range compare(base(), got) {
				lines = append(lines, d.String())
			}
			if diff := cmp.Diff(tt.want, lines); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestNormalise(t *testing.T) {
	t.Parallel()
	n, err := newNormaliser(map[string]string{"up.main": "45678", "dir": "/d"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, in, want string }{
		{"date", "date: Tue, 15 Nov 1994 08:12:31 GMT", "date: <date>"},
		{"not a date", "date: yesterday", "date: yesterday"},
		{"service time", "x-envoy-upstream-service-time: 12", "x-envoy-upstream-service-time: <ms>"},
		{"not a service time", "x-envoy-upstream-service-time: x", "x-envoy-upstream-service-time: x"},
		{"uuid", "x-request-id: 6f1e0a83-8a5f-4d3c-9b0a-0123456789ab", "x-request-id: <uuid>"},
		{"not a uuid", "x-request-id: 6f1e0a83-8a5f-4d3c-cb0a-0123456789ab", "x-request-id: 6f1e0a83-8a5f-4d3c-cb0a-0123456789ab"},
		{"known port", "x: 127.0.0.1:45678", "x: 127.0.0.1:<up.main>"},
		{"other port", "x: 127.0.0.1:45679", "x: 127.0.0.1:<port>"},
		{"port alone", "x: 45678 45679", "x: <up.main> 45679"},
		{"binary", "x: \x01", `"x: \x01"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := n.header(tt.in); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckTopics(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, filepath.Join(root, "a", "a.go"), "package a\n// DIVERGES(known): x\n// DIVERGES(unknown): y\n")
	write(t, filepath.Join(root, "a", "a_test.go"), "package a\n// DIVERGES(in-a-test): x\n")
	write(t, filepath.Join(root, "docs", "compat.md"), "| `known` | x |\n| `stale` | x |\n")
	err := checkTopics(root, []*allowance{{Topic: "nowhere"}})
	if err == nil {
		t.Fatal("nothing was found")
	}
	for _, want := range []string{
		"a/a.go: DIVERGES(unknown) has no row", "no DIVERGES(stale) in the code",
		`topic "nowhere" has no row`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d complaints, want 3:\n%v", n, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestAllowed asserts that an allowance explains what it names and nothing else.
func TestAllowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "allowed.yaml"),
		"- {case: g/*, line: '^- stats: a ', topic: t, reason: r}\n")
	list, err := readAllowed(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, c := range []struct{ name, line string }{
		{"g/x", "a +1"}, {"g/x", "b +1"}, {"h/x", "a +1"},
	} {
		d := difference{Slot: kindStats, Sign: signWant, Text: c.line}
		got[c.name+" "+c.line] = allowedBy(list, c.name, d) != nil
	}
	want := map[string]bool{"g/x a +1": true, "g/x b +1": false, "h/x a +1": false}
	if !maps.Equal(got, want) {
		t.Errorf("allowed %v, want %v", got, want)
	}
	write(t, filepath.Join(dir, "allowed.yaml"), "- {case: g/*, line: x, topic: t}\n")
	if _, err := readAllowed(dir); err == nil {
		t.Error("an allowance without a reason was taken")
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	o, err := parseFlags([]string{"-ignore", "stats,log", "-run", "^h1"})
	if err != nil {
		t.Fatal(err)
	}
	if !o.ignore[kindStats] || !o.ignore[kindLog] || o.ignore[kindClient] || !o.run.MatchString("h1/x") {
		t.Errorf("options: %+v", o)
	}
	if _, err := command(context.Background(), []string{"-run", "("}); err == nil {
		t.Error("a bad pattern was taken")
	}
	keys := slices.Sorted(maps.Keys(o.ignore))
	if !slices.Equal(keys, []string{"log", "stats"}) {
		t.Errorf("ignore: %v", keys)
	}
}
