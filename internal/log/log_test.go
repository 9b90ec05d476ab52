package log

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lockedBuffer is written to by the log's goroutine and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestPattern(t *testing.T) {
	t.Parallel()
	r := &record{
		time: time.Date(2026, 3, 4, 15, 6, 7, 8_009_010, time.FixedZone("x", 3600)), level: LevelWarning,
		component: "upstream", message: []byte("a \"b\"\nc"), file: "/home/x/cluster/pool/pool.go", line: 12,
		function: "sidecar/cluster/pool.(*Pool).Get",
	}
	for in, want := range map[string]string{
		"":                          "",
		"plain":                     "plain",
		"%Y-%m-%d %T.%e":            "2026-03-04 14:06:07.008",
		"%f %F %E":                  "008009 008009010 1772633167",
		"[%l][%L][%n]":              "[warning][W][upstream]",
		"%g:%#":                     "cluster/pool/pool.go:12",
		"%@ %s %!":                  "cluster/pool/pool.go:12 pool.go pool.(*Pool).Get",
		"%v":                        "a \"b\"\nc",
		"%_":                        `a "b"\nc`,
		`{"m":"%j"}`:                `{"m":"a \"b\"\nc"}`,
		"%a %A %b %h %B":            "Wed Wednesday Mar Mar March",
		"%c|%C|%D|%x":               "Wed Mar  4 14:06:07 2026|26|03/04/26|03/04/26",
		"%H %I %M %S %p %r %R %X":   "14 02 06 07 PM 02:06:07 PM 14:06 14:06:07",
		"%z":                        "+00:00",
		"%+":                        "[2026-03-04 14:06:07.008] [upstream] [warning] [pool.go:12] a \"b\"\nc",
		"100%% %^red%$ %q %":        "100% red %q ",
		"%10l|%-10l|%=10l|%3!l|%3l": "   warning|warning   | warning  |war|warning",
		"%-q %-":                    "%q ",
		"%":                         "",
		"%8":                        "",
		"%999l":                     strings.Repeat(" ", 57) + "warning",
		"%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v": "2026-03-04T14:06:07.008009Z\twarning\tenvoy upstream cluster/pool/pool.go:12\ta \"b\"\nc",
	} {
		if got := string(compilePattern(in).append(nil, r)); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	var out lockedBuffer
	logs := New(&out)
	logs.SetFormat("%l %n %g: %v")
	logs.SetLevel(LevelError)
	if err := logs.SetComponentLevel("upstream", LevelTrace); err != nil {
		t.Fatal(err)
	}
	up, other := logs.Component("upstream"), logs.Component("no such")
	up.Log(t.Context(), LevelTrace, "one", "k", "v", "q", "a b", "err", errors.New("x=y"))
	up.With("w", 1).WithGroup("g").Info("two", "k", time.Second, slog.Group("h", "i", true))
	other.Warn("not seen")
	other.Log(t.Context(), LevelCritical, "three")
	logs.Flush(t.Context())
	want := `trace upstream internal/log/log_test.go: one k=v q="a b" err="x=y"
info upstream internal/log/log_test.go: two w=1 g.k=1s g.h.i=true
critical misc internal/log/log_test.go: three
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	logs.SetLevel(LevelOff)
	up.Error("off")
	logs.Flush(t.Context())
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if err := logs.SetComponentLevel("nope", LevelInfo); err == nil {
		t.Error("an unknown component was taken")
	}
}

func TestParseLevels(t *testing.T) {
	t.Parallel()
	for _, l := range levelNames {
		if got, err := ParseLevel(l.name); err != nil || got != l.level || LevelName(got) != l.name {
			t.Errorf("%s: %v, %v", l.name, got, err)
		}
	}
	if got, err := ParseLevel("warn"); err != nil || got != LevelWarning {
		t.Errorf("warn: %v, %v", got, err)
	}
	// The texts are Envoy's.
	for in, want := range map[string]string{
		"upstream:debug,config:trace": "",
		"":                            "",
		"foo:info":                    "invalid component specified 'foo'",
		"upstream":                    "component log level not correctly specified 'upstream'",
		"upstream:nope":               "invalid log level specified 'nope'",
		"a:b:c":                       "component log level not correctly specified 'a:b:c'",
	} {
		_, err := ParseComponentLevels(in)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// stuckWriter blocks until it is let go.
type stuckWriter struct {
	started, release chan struct{}
	once             sync.Once
	out              lockedBuffer
}

func (s *stuckWriter) Write(b []byte) (int, error) {
	s.once.Do(func() { close(s.started) })
	<-s.release
	return s.out.Write(b)
}

func TestOutput_DropsRatherThanBlocks(t *testing.T) {
	t.Parallel()
	w := &stuckWriter{started: make(chan struct{}), release: make(chan struct{})}
	logs := New(w)
	logs.SetFormat("%v")
	l := logs.Component("main")
	l.Info("first")
	<-w.started
	long := strings.Repeat("x", maxPending/4)
	for range 6 {
		l.Info(long)
	}
	if logs.Dropped() != 3 {
		t.Errorf("%d lines dropped", logs.Dropped())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	logs.Flush(ended) // must not wait for the writer
	close(w.release)
	logs.Flush(t.Context())
	l.Info("last")
	logs.Flush(t.Context())
	if got := w.out.String(); !strings.HasSuffix(got, "\n3 log lines were dropped: they came faster than they could be written\nlast\n") {
		t.Errorf("the log ends in %q", got[max(0, len(got)-200):])
	}
}

func TestFile_Reopen(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "log")
	f, err := OpenFile(name)
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		if _, err := f.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	write("b")
	if err := f.Reopen(); err != nil {
		t.Fatal(err)
	}
	write("c")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{name: "c", name + ".1": "ab"} {
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", file, got, err)
		}
	}
	if _, err := OpenFile(filepath.Join(name, "x")); err == nil {
		t.Error("opened a file inside a file")
	}
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{"%v", "%10!v", "%-=8l", "%", "%99999999999999999999v", "%+%+", "%=3!j", "é%3!né"} {
		f.Add(s, "message")
	}
	f.Fuzz(func(_ *testing.T, format, message string) {
		r := &record{time: time.Unix(0, 0), component: "main", message: []byte(message)}
		compilePattern(format).append(nil, r)
	})
}
