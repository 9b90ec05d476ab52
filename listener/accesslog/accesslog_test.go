package accesslog

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func parse(t testing.TB, s string) *accesslogv3.AccessLog {
	t.Helper()
	m := &accesslogv3.AccessLog{}
	if err := protojson.Unmarshal([]byte(s), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func options(t testing.TB, so SinkOptions) *Options {
	t.Helper()
	so.Store, so.Log = stats.New(), slog.New(slog.DiscardHandler)
	s := NewSinks(so)
	t.Cleanup(func() { s.Close(context.Background()) })
	return &Options{Sinks: s}
}

func compile(t testing.TB, o *Options, s string) *Logger {
	t.Helper()
	var errs config.Errors
	out := Compile(config.Field("access_log"), []*accesslogv3.AccessLog{parse(t, s)}, o, &errs)
	if err := errs.Err(); err != nil {
		t.Fatal(err)
	}
	return out[0]
}

func info() *stream.Info {
	in := &stream.Info{}
	in.Reset(time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), &stream.ConnInfo{})
	in.Complete = 7 * time.Millisecond
	in.Status, in.Protocol = 200, stream.HTTP11
	in.Request = &header.Map{}
	in.Request.Add(":method", "GET")
	in.Request.Add(":path", "/p")
	in.Request.Add("x-a", "1")
	in.Response = &header.Map{}
	return in
}

const (
	fileLog   = `{"typed_config":{"@type":"type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",`
	stdoutLog = `{"typed_config":{"@type":"type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"`
)

func TestFormats(t *testing.T) {
	t.Parallel()
	const line = "[2026-01-02T03:04:05.006Z] \"GET /p HTTP/1.1\" 200 - 0 0 7 - \"-\" \"-\" \"-\" \"-\" \"-\"\n"
	for name, tt := range map[string]struct{ fields, want string }{
		"default":       {`"path":"PATH"`, line},
		"empty format":  {`"path":"PATH","format":""`, line},
		"format":        {`"path":"PATH","format":"%PROTOCOL%\n"`, "HTTP/1.1\n"},
		"json":          {`"path":"PATH","json_format":{"c":"%RESPONSE_CODE%"}`, "{\"c\":200}\n"},
		"typed json":    {`"path":"PATH","typed_json_format":{"c":"%RESPONSE_CODE%"}`, "{\"c\":200}\n"},
		"log_format":    {`"path":"PATH","log_format":{"text_format_source":{"inline_string":"x\n"}}`, "x\n"},
		"omitted value": {`"path":"PATH","log_format":{"text_format":"[%REQ(no)%]\n","omit_empty_values":true}`, "[]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, SinkOptions{})
			path := filepath.Join(t.TempDir(), "log")
			l := compile(t, o, fileLog+strings.ReplaceAll(tt.fields, "PATH", path)+"}}")
			l.Log(info())
			l.Log(info())
			o.Sinks.Flush(t.Context())
			got, err := os.ReadFile(path)
			if err != nil || string(got) != tt.want+tt.want {
				t.Errorf("%q %v", got, err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"no path":      {fileLog + `"format":"x"}}`, "access_log[0].typed_config.path: value length must be at least 1"},
		"no such dir":  {fileLog + `"path":"/does/not/exist/log"}}`, "access_log[0].typed_config.path: unable to open file '/does/not/exist/log': no such file or directory"},
		"bad format":   {fileLog + `"path":"/dev/null","format":"%FOO%"}}`, "access_log[0].typed_config.text_format: Not supported field in StreamInfo: FOO"},
		"bad json":     {fileLog + `"path":"/dev/null","json_format":{"a":"%"}}}`, `access_log[0].typed_config.json_format["a"]: Incorrect configuration`},
		"no config":    {`{"name":"envoy.access_loggers.file"}`, "access_log[0].typed_config: is required"},
		"other logger": {`{"typed_config":{"@type":"type.googleapis.com/google.protobuf.Empty"}}`, "access_log[0].typed_config: access logger google.protobuf.Empty is not supported"},
		"traceable":    {`{"filter":{"traceable_filter":{}},` + stdoutLog[1:] + `}}`, "access_log[0].filter.traceable_filter: is not supported"},
		"bad flag":     {`{"filter":{"response_flag_filter":{"flags":["XX"]}},` + stdoutLog[1:] + `}}`, "access_log[0].filter.response_flag_filter.flags[0]"},
		"no filter":    {`{"filter":{},` + stdoutLog[1:] + `}}`, "access_log[0].filter"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var errs config.Errors
			out := Compile(config.Field("access_log"), []*accesslogv3.AccessLog{parse(t, tt.in)}, options(t, SinkOptions{}), &errs)
			if err := errs.Err(); err == nil || !strings.Contains(err.Error(), tt.want) || len(out) != 0 {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	var o Options
	o.Runtime = func(key string) (uint64, bool) {
		return map[string]uint64{"code": 300, "all": 100}[key], key != "" && key != "none"
	}
	health := info()
	health.HealthCheck = true
	flagged := info()
	flagged.Flags, flagged.Status, flagged.LogType = stream.NoRouteFound, 404, stream.LogDownstreamEnd
	grpc := info()
	grpc.Request.Add("content-type", "application/grpc")
	grpc.Response.Add("grpc-status", "5")
	meta := info()
	meta.Metadata = map[string]map[string]any{"ns": {"k": "v"}}
	pending := info()
	pending.Complete = stream.Unset
	code := func(op, value string) string {
		return `{"status_code_filter":{"comparison":{"op":"` + op + `","value":` + value + `}}}`
	}
	for name, tt := range map[string]struct {
		filter string
		in     *stream.Info
		want   bool
	}{
		"code equal":            {code("EQ", `{"default_value":200,"runtime_key":"none"}`), info(), true},
		"code at least":         {code("GE", `{"default_value":201,"runtime_key":"none"}`), info(), false},
		"code at most":          {code("LE", `{"default_value":200,"runtime_key":"none"}`), info(), true},
		"code differs":          {code("NE", `{"default_value":200,"runtime_key":"none"}`), info(), false},
		"code by runtime":       {code("GE", `{"default_value":1,"runtime_key":"code"}`), info(), false},
		"duration":              {`{"duration_filter":{"comparison":{"op":"GE","value":{"default_value":7,"runtime_key":"none"}}}}`, info(), true},
		"duration of a running": {`{"duration_filter":{"comparison":{"op":"GE","value":{"default_value":0,"runtime_key":"none"}}}}`, pending, false},
		"health check":          {`{"not_health_check_filter":{}}`, health, false},
		"no health check":       {`{"not_health_check_filter":{}}`, info(), true},
		"runtime all":           {`{"runtime_filter":{"runtime_key":"all"}}`, info(), true},
		"runtime none":          {`{"runtime_filter":{"runtime_key":"none"}}`, info(), false},
		"and":                   {`{"and_filter":{"filters":[{"not_health_check_filter":{}},` + code("EQ", `{"default_value":404,"runtime_key":"none"}`) + `]}}`, info(), false},
		"or":                    {`{"or_filter":{"filters":[{"not_health_check_filter":{}},` + code("EQ", `{"default_value":404,"runtime_key":"none"}`) + `]}}`, info(), true},
		"header":                {`{"header_filter":{"header":{"name":"X-A","string_match":{"exact":"1"}}}}`, info(), true},
		"header differs":        {`{"header_filter":{"header":{"name":"X-A","string_match":{"exact":"2"}}}}`, info(), false},
		"any flag":              {`{"response_flag_filter":{}}`, flagged, true},
		"no flag":               {`{"response_flag_filter":{}}`, info(), false},
		"this flag":             {`{"response_flag_filter":{"flags":["NR"]}}`, flagged, true},
		"another flag":          {`{"response_flag_filter":{"flags":["UH"]}}`, flagged, false},
		"grpc":                  {`{"grpc_status_filter":{"statuses":["NOT_FOUND"]}}`, grpc, true},
		"grpc excluded":         {`{"grpc_status_filter":{"statuses":["NOT_FOUND"],"exclude":true}}`, grpc, false},
		"metadata":              {`{"metadata_filter":{"matcher":{"filter":"ns","path":[{"key":"k"}],"value":{"string_match":{"exact":"v"}}}}}`, meta, true},
		"metadata differs":      {`{"metadata_filter":{"matcher":{"filter":"ns","path":[{"key":"k"}],"value":{"string_match":{"exact":"w"}}}}}`, meta, false},
		"metadata missing":      {`{"metadata_filter":{"matcher":{"filter":"ns","path":[{"key":"k"}],"value":{"string_match":{"exact":"v"}}}}}`, info(), true},
		"metadata must be":      {`{"metadata_filter":{"matcher":{"filter":"ns","path":[{"key":"k"}],"value":{"string_match":{"exact":"v"}}},"match_if_key_not_found":false}}`, info(), false},
		"log type":              {`{"log_type_filter":{"types":["DownstreamEnd"]}}`, flagged, true},
		"log type excluded":     {`{"log_type_filter":{"types":["DownstreamEnd"],"exclude":true}}`, flagged, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &accesslogv3.AccessLogFilter{}
			if err := protojson.Unmarshal([]byte(tt.filter), m); err != nil {
				t.Fatal(err)
			}
			var errs config.Errors
			f := CompileFilter(config.Field("filter"), m, &o, &errs)
			if err := errs.Err(); err != nil {
				t.Fatal(err)
			}
			if got := f(tt.in); got != tt.want {
				t.Error(got)
			}
		})
	}
}

func TestStableRandomIsTheRequestIDs(t *testing.T) {
	t.Parallel()
	if got := stableRandom("0000002a-ea11-41eb-ba12-cb73eefc7043", 1); got != 42 {
		t.Error(got)
	}
	for _, id := range []string{"", "xyz", "zzzzzzzz-"} {
		if got := stableRandom(id, 7); got != 7 {
			t.Error(id, got)
		}
	}
}

// writer is a sink's file that tests can watch and block.
type writer struct {
	mu     sync.Mutex
	b      bytes.Buffer
	writes int
	gate   chan struct{} // if not nil, each Write waits for it
}

func (w *writer) Write(p []byte) (int, error) {
	if w.gate != nil {
		<-w.gate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	return w.b.Write(p)
}

func (w *writer) state() (lines, writes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.b.String(), "\n"), w.writes
}

func TestFlushByTimerAndSize(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &writer{}
		o := options(t, SinkOptions{Stdout: w, FlushInterval: time.Second, FlushMinBytes: 1000})
		l := compile(t, o, stdoutLog+`}}`)
		l.Log(info())
		time.Sleep(999 * time.Millisecond) // virtual time
		synctest.Wait()
		if lines, _ := w.state(); lines != 0 {
			t.Error("written before the interval")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if lines, writes := w.state(); lines != 1 || writes != 1 {
			t.Error("after the interval:", lines, writes)
		}
		for range 20 {
			l.Log(info())
		}
		synctest.Wait()
		if lines, _ := w.state(); lines < 12 {
			t.Error("after the least size:", lines)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if lines, _ := w.state(); lines != 21 {
			t.Error("the rest by the timer:", lines)
		}
		if got := o.Sinks.stats.FlushedByTimer.Value(); got < 1 {
			t.Error("flushed_by_timer", got)
		}
		if got := o.Sinks.stats.TotalBuffered.Value(); got != 0 {
			t.Error("write_total_buffered", got)
		}
		o.Sinks.Close(t.Context())
	})
}

func TestFullBufferDropsWholeLines(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := &writer{gate: gate}
	o := options(t, SinkOptions{Stdout: w, FlushMinBytes: 100})
	l := compile(t, o, stdoutLog+`,"log_format":{"text_format":"%REQ(x-long)%\n"}}}`)
	in := info()
	in.Request.Add("x-long", strings.Repeat("x", 999))
	const sent = 3000
	for range sent {
		l.Log(in)
	}
	dropped := o.Sinks.stats.WriteDropped.Value()
	if dropped == 0 || dropped > sent-maxPending/1000 {
		t.Error("dropped", dropped)
	}
	close(gate)
	o.Sinks.Flush(t.Context())
	lines, _ := w.state()
	if got := uint64(lines) + dropped; got != sent {
		t.Errorf("%d lines written and %d dropped of %d", lines, dropped, sent)
	}
	if w.b.Len() != lines*1000 {
		t.Error("a line was cut")
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	o := options(t, SinkOptions{})
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	l := compile(t, o, fileLog+`"path":"`+path+`","format":"x\n"}}`)
	if again := compile(t, o, fileLog+`"path":"`+path+`"}}`); again.sink != l.sink {
		t.Error("two sinks for one path")
	}
	l.Log(info())
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := o.Sinks.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Log(info())
	l.Log(info())
	o.Sinks.Flush(t.Context())
	for name, want := range map[string]string{path + ".1": "x\n", path: "x\nx\n"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := o.Sinks.Reopen(); err == nil {
		t.Error("no error for a directory that has gone")
	}
	if got := o.Sinks.stats.ReopenFailed.Value(); got != 1 {
		t.Error("reopen_failed", got)
	}
	l.Log(info())
}

func TestCompilePath(t *testing.T) {
	t.Parallel()
	o := options(t, SinkOptions{})
	path := filepath.Join(t.TempDir(), "log")
	var errs config.Errors
	p := config.Field("admin.access_log_path")
	CompilePath(p, path, o, &errs).Log(info())
	o.Sinks.Flush(t.Context())
	if got, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(got), "[2026-01-02T03:04:05.006Z] \"GET /p") {
		t.Errorf("%q %v", got, err)
	}
	if CompilePath(p, "/does/not/exist/log", o, &errs) != nil || errs.Len() != 1 {
		t.Error(errs.Err())
	}
}

func TestDryOpensNothing(t *testing.T) {
	t.Parallel()
	o := options(t, SinkOptions{Dry: true})
	path := filepath.Join(t.TempDir(), "log")
	compile(t, o, fileLog+`"path":"`+path+`"}}`).Log(info())
	if _, err := os.Stat(path); err == nil {
		t.Error("the file was made")
	}
}

func TestFieldsAreAccountedFor(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.core.v3.SubstitutionFormatString", "envoy.config.route.v3.HeaderMatcher",
		"envoy.type.matcher.v3.MetadataMatcher",
	}, accessLogFields, fileFields, stdoutFields, stderrFields, filterFields, comparisonFields,
		statusFields, durationFields, healthFields, runtimeFields, runtimeUintFields, andFields,
		orFields, headerFields, flagFields, grpcFields, metadataFields, logTypeFields)
}

func TestAllocs_Line(t *testing.T) {
	o := options(t, SinkOptions{Stdout: io.Discard, FlushInterval: time.Hour})
	l := compile(t, o, `{"filter":{"and_filter":{"filters":[{"not_health_check_filter":{}},{"header_filter":{"header":{"name":"x-a","present_match":true}}}]}},`+stdoutLog[1:]+`}}`)
	in := info()
	for range 5000 { // both buffers have grown
		l.Log(in)
	}
	if n := testing.AllocsPerRun(2000, func() { l.Log(in) }); n != 0 {
		t.Errorf("%v allocations a line", n)
	}
}

func TestConcurrentLines(t *testing.T) {
	t.Parallel()
	w := &writer{}
	o := options(t, SinkOptions{Stdout: w, FlushMinBytes: 500, FlushInterval: time.Millisecond})
	l := compile(t, o, stdoutLog+`}}`)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			in := info()
			for range 500 {
				l.Log(in)
			}
		})
	}
	wg.Wait()
	o.Sinks.Close(t.Context())
	if lines, _ := w.state(); lines != 2000 {
		t.Errorf("%d lines", lines)
	}
}

func BenchmarkLine(b *testing.B) {
	o := options(b, SinkOptions{Stdout: io.Discard})
	l := compile(b, o, stdoutLog+`}}`)
	in := info()
	b.ReportAllocs()
	for b.Loop() {
		l.Log(in)
	}
}
