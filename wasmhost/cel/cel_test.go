package cel_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"sidecar/wasmhost/cel"
)

// attributes are by path.
type attributes map[string]any

func (a attributes) Resolve(path string) (any, bool) {
	v, ok := a[strings.ReplaceAll(path, "\x00", "|")]
	return v, ok
}

func sample() attributes {
	return attributes{
		"request|path": "/a/b", "request|size": int64(12), "connection|mtls": true,
		"request|headers":      map[string]any{"x-a": "1", "host": "h"},
		"request|headers|x-a":  "1",
		"request|time":         time.Date(2026, 3, 4, 5, 6, 7, 8e6, time.UTC),
		"request|duration":     1500 * time.Millisecond,
		"metadata|filter|list": []any{"a", 2.0, nil},
		"cluster":              "c",
	}
}

func TestEval(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]any{
		`1 + 2 * 3`: int64(7), `(1 + 2) * 3`: int64(9), `7 / 2`: int64(3), `-7 % 3`: int64(-1), `7u / 2u`: uint64(3),
		`0x10`: int64(16), `1.5e1`: 15.0, `-9223372036854775808`: int64(math.MinInt64), `1 == 1.0`: true, `1u == 1`: true,
		`2 > 1.5`: true, `double("nan") == double("nan")`: false, `"a" + 'b'`: "ab", `b"a" + b"\x00"`: []byte("a\x00"),
		`r"\d"`: `\d`, `"\u00e9\101\n"`: "éA\n", `"""a"b"""`: `a"b`, `true && !false`: true, `false || true`: true,
		`false && 1/0 == 1`: false, `1/0 == 1 && false`: false, `1/0 == 1 || true`: true, `true ? 1 : 1/0`: int64(1),
		`[1, 2, 3][1]`: int64(2), `{"a": 1}.a`: int64(1), `{"a": 1}["a"]`: int64(1), `2 in [1, 2]`: true, `"x" in {"x": 1}`: true,
		`size("äb")`: int64(2), `size([1])`: int64(1), `"abc".startsWith("ab")`: true, `"abc".endsWith("bc")`: true,
		`"abc".contains("b")`: true, `"abc".matches("b.")`: true, `"a-1".matches("^[a-z]-\\d$")`: true,
		`int("12")`: int64(12), `int(3.9)`: int64(3), `uint(3)`: uint64(3), `double(1)`: 1.0, `string(1)`: "1", `string(true)`: "true",
		`type(1)`: "int", `"AbC".lowerAscii()`: "abc", `"AbC".upperAscii()`: "ABC", `duration("1m") > duration("59s")`: true,
		`timestamp("2026-01-02T03:04:05Z").getHours()`: int64(3), `[1, 2, 3].exists(x, x > 2)`: true,
		`[1, 2, 3].all(x, x > 1)`: false, `[1, 2, 3].exists_one(x, x > 2)`: true, `size([1, 2, 3].filter(x, x > 1))`: int64(2),
		`[1, 2].map(x, x * 2)[1]`: int64(4), `[1, 2].map(x, x > 1, x * 10)[0]`: int64(20), `null == null`: true,
		`request.path`: "/a/b", `request.size > 10`: true, `connection.mtls`: true, `request.headers['x-a']`: "1",
		`request.headers["host"] == "h"`: true, `'x-a' in request.headers`: true, `has(request.headers.nope)`: false,
		`has(request.path)`: true, `has(request.nope)`: false, `request.headers.exists(h, h == "host")`: true,
		`metadata.filter.list[0]`: "a", `request.time.getFullYear()`: int64(2026), `request.time.getMonth()`: int64(2),
		`request.duration.getMilliseconds()`: int64(1500), `request.duration < duration("2s")`: true, `cluster`: "c",
		`["a"].exists(cluster, cluster == "a")`: true, `.cluster`: "c", "1 // end\n + 1": int64(2), `dyn(1)`: int64(1),
		`request.time + duration("1s") > request.time`: true, `[1] + [2] == [1, 2]`: true, `{"a": [1]} == {"a": [1.0]}`: true,
	} {
		p, err := cel.Compile(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		got, err := p.Eval(sample())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, %v; want %#v", source, got, err, want)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, source := range []string{
		``, `1 +`, `(`, `[1`, `{"a" 1}`, `"a`, `'a` + "\n'", `1 2`, `a.`, `a.1`, `f(1)`, `size()`, `"a".size(1)`, `has(1)`, `has()`,
		`in`, `#`, `99999999999999999999`, `"\q"`, `"\ud800"`, `x.map(1, 2)`, `x.exists(y)`, `[1].all(x, x, x)`, `1e`, `0x`,
		strings.Repeat("(", 200), strings.Repeat("!", 200) + "true", strings.Repeat("[", 200), `while`,
	} {
		if _, err := cel.Compile(source); err == nil {
			t.Errorf("%q compiles", source)
		}
	}
	for _, source := range []string{
		`1/0`, `1u - 2u`, `9223372036854775807 + 1`, `-9223372036854775808 / -1`, `1 + "a"`, `1 && true`, `nope`, `request.nope`,
		`[1][1]`, `[1][-1]`, `{"a": 1}.b`, `{1: 2}`, `!1`, `-"a"`, `1 < "a"`, `1 in 2`, `"a".matches("(")`, `int("x")`, `uint(-1)`,
		`int(1e300)`, `bool("x")`, `true ? 1 : 2 ? 3 : 4`[:0] + `1 ? 2 : 3`, `size(1)`, `timestamp("x")`, `1.5 % 2.0`, `request`,
		`[1].map(x, x + "a")`, `[1].filter(x, x)`, `duration("1s") * 2`,
	} {
		p, err := cel.Compile(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if v, err := p.Eval(sample()); err == nil {
			t.Errorf("%s: %#v", source, v)
		}
	}
}

// TestCost: what would take long is an error soon.
func TestCost(t *testing.T) {
	t.Parallel()
	list := "[" + strings.Repeat("1,", 500) + "1]"
	source := list
	for range 5 {
		source = fmt.Sprintf("%s.map(x, %s)", list, source)
	}
	if len(source) < 10000 {
		p, err := cel.Compile(source)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := p.Eval(sample()); err == nil {
			t.Error("no error")
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("took %v", d)
		}
	}
	text := `"` + strings.Repeat("a", 30000) + `"`
	p, err := cel.Compile(list + `.exists(x, ` + text + `.matches("(a*)*b(a?){100}"))`)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = p.Eval(sample())
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v (%v)", d, err)
	}
}

// FuzzCompile: no text makes the compiler or the evaluator panic, or run for long.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`1 + 2`, `request.headers['a'] == "b"`, `[1, 2].map(x, x * 2)`, `has(a.b.c)`, `"\x41\u00e9"`, `b'\377'`, `a ? b : c`,
		`{"a": 1}`, `-9223372036854775808`, `1.5e-3`, `0xffu`, `'''a'''`, `x.exists(y, y in [1])`, `!!true`, `duration("1h")`,
		`timestamp("2026-01-01T00:00:00Z")`, `"a".matches("a+")`, `size("x") % 2`, `// c`, `a.b[c].d(e)`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := cel.Compile(s)
		if err != nil {
			return
		}
		start := time.Now()
		_, err = p.Eval(sample())
		if d := time.Since(start); d > 10*time.Second && !errors.Is(err, nil) {
			t.Errorf("%q took %v", s, d)
		}
	})
}
