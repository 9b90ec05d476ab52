package hcm

import (
	"strings"
	"testing"

	"sidecar/api/stream"
)

func TestNormalizePath(t *testing.T) {
	t.Parallel()
	const norm, merge = "normalize_path: true\n", "merge_slashes: true\n"
	const forward = "path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD\n"
	for _, c := range []struct{ name, yaml, path, want string }{
		{"off", "", "/a/../b//c", "/a/../b//c"},
		{"plain", norm, "/a/b?x=../y", "/a/b?x=../y"},
		{"dots", norm, "/a/./b/../c", "/a/c"},
		{"above the root", norm, "/../../a", "/a"},
		{"last dot", norm, "/a/.", "/a/"},
		{"last dots", norm, "/a/b/..", "/a/"},
		{"escaped dots", norm, "/a/%2e%2E/b", "/b"},
		{"half escaped", norm, "/a/.%2e/b", "/b"},
		{"three dots", norm, "/a/.../b", "/a/.../b"},
		{"dot file", norm, "/a/.b", "/a/.b"},
		{"backslash", norm, `/a\..\b`, "/b"},
		{"unreserved", norm, "/%61%2d%7e", "/a-~"},
		{"kept escapes", norm, "/%2f%20%zz%", "/%2f%20%zz%"},
		{"must be escaped", norm, `/a"b`, "/a%22b"},
		{"merge", merge, "/a//b///c/?d//e", "/a/b/c/?d//e"},
		{"only slashes", merge, "///", "//"},
		{"unescaped", forward, "/a%2Fb%5cc?%2f", "/a/b\\c?%2f"},
		{"all", norm + merge + forward, "/a%2f..%2F%2fb", "/b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.yaml)
			h := head(":path: " + c.path)
			r.begin()
			r.post(stream.Event{Kind: stream.EventHeaders, Map: h, End: true})
			if got, _ := h.Get(":path"); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	r := newRig(t, norm)
	r.request(true, ":path: /a%00b")
	if !strings.Contains(r.take(), "log 400 - path_normalization_failed") {
		t.Error("an escaped NUL passes")
	}
}

// FuzzNormalizeDots checks what the routes rely on: no segment of the result is one of dots, in
// whatever spelling, there is no backslash, and a second time changes nothing.
func FuzzNormalizeDots(f *testing.F) {
	for _, s := range []string{
		"/", "/a/../b", "/a/%2e%2e/b", `/a\..\b`, "/%252e/", "/..", "/.", "//", "/a/%2E.", "/%00", "/a%2", "/\xff/..",
		"/a/..%2f", "/....//", "/%5c..", "/a;/../b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if p == "" || p[0] != '/' || strings.ContainsAny(p, "?#") {
			t.Skip()
		}
		got, ok := normalizeDots(p)
		if !ok {
			if !strings.Contains(p, "%00") {
				t.Fatalf("%q is refused", p)
			}
			return
		}
		if got == "" || got[0] != '/' {
			t.Fatalf("%q becomes %q", p, got)
		}
		if strings.Contains(got, `\`) {
			t.Fatalf("%q becomes %q, with a backslash", p, got)
		}
		for seg := range strings.SplitSeq(got, "/") {
			if dots(seg) != 0 {
				t.Fatalf("%q becomes %q, with dots", p, got)
			}
		}
		if again, _ := normalizeDots(got); again != got {
			t.Fatalf("%q becomes %q, then %q", p, got, again)
		}
	})
}

func FuzzMergeSlashes(f *testing.F) {
	for _, s := range []string{"/", "//", "/a//b", "///a///"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		got := mergeSlashes(p)
		if strings.Trim(p, "/") != "" && strings.Contains(got, "//") {
			t.Fatalf("%q becomes %q", p, got)
		}
		if strings.ReplaceAll(got, "/", "") != strings.ReplaceAll(p, "/", "") {
			t.Fatalf("%q becomes %q", p, got)
		}
	})
}
