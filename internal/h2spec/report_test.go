package main

import (
	"strings"
	"testing"
)

const sample = `<testsuites><testsuite name="a">
<testcase package="p/1" classname="one"></testcase>
<testcase package="p/1" classname="two"><failure>Expect: x` + "\x00\xff" + `
Actual: y</failure></testcase>
<testcase package="p/1" classname="two"></testcase>
<testcase package="p/2" classname="three"><skipped></skipped></testcase>
</testsuite></testsuites>`

func TestCompare(t *testing.T) {
	t.Parallel()
	r, err := parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if len(r) != 4 || !r[0].passed() || r[1].passed() || !r[2].passed() || r[3].passed() {
		t.Fatalf("read %+v", r)
	}
	all := report{{name: r[0].name}, {name: r[1].name}, {name: r[2].name}, {name: r[3].name}}
	for _, tc := range []struct {
		name         string
		theirs, ours report
		want         string // of the last line
		fails        bool
	}{
		{"same", r, r, "4 cases; only Envoy passes 0, only the sidecar 0, neither 2", false},
		{"better", r, all, "4 cases; only Envoy passes 0, only the sidecar 2, neither 0", false},
		{"worse", all, r, "4 cases; only Envoy passes 2, only the sidecar 0, neither 0", true},
		{"not run", all, r[:1], "4 cases; only Envoy passes 3, only the sidecar 0, neither 0", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			err := compare(&out, tc.theirs, tc.ours, true)
			if (err != nil) != tc.fails || !strings.Contains(out.String(), tc.want) {
				t.Errorf("got %v and\n%s", err, &out)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"", "<testsuites></testsuites>", "<testsuites>"} {
		if _, err := parse([]byte(data)); err == nil {
			t.Errorf("%q is taken", data)
		}
	}
}
