package log

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// Names are the components, Envoy's own: --component-log-level and POST /logging take these.
var names = [...]string{
	"a2a", "admin", "ai_protocol_manager", "alternate_protocols_cache", "aws", "assert", "backtrace",
	"basic_auth", "cache_filter", "client", "config", "connection", "conn_handler", "compression",
	"credential_injector", "decompression", "dns", "dubbo", "envoy_bug", "ext_authz", "ext_proc",
	"rocketmq", "file", "filter", "forward_proxy", "geolocation", "grpc", "happy_eyeballs", "hc",
	"health_checker", "http", "http2", "hystrix", "init", "io", "jwt", "json_rpc", "kafka",
	"key_value_store", "lua", "local_rate_limit", "main", "matcher", "mcp", "misc", "mongo",
	"multi_connection", "notification", "oauth2", "quic", "quic_stream", "pool", "rate_limit_quota",
	"rbac", "rds", "redis", "router", "runtime", "stats", "secret", "sse", "tap", "testing", "thrift",
	"tracing", "upstream", "udp", "wasm", "websocket", "golang", "stats_sinks", "dynamic_modules",
	"ip_tagging",
}

// DefaultFormat is Envoy's --log-format.
const DefaultFormat = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v"

// Logs is the log of a process. It may be used from any goroutine.
type Logs struct {
	out    *output
	format atomic.Pointer[pattern]
	levels [len(names)]atomic.Int64
}

// New makes a log that writes to w, which it doesn't close. All components start at info.
func New(w io.Writer) *Logs {
	l := &Logs{out: newOutput(w)}
	l.format.Store(compilePattern(DefaultFormat))
	return l
}

// SetFormat changes the pattern: https://github.com/gabime/spdlog/wiki/3.-Custom-formatting, and
// Envoy's %_ (the message with its line ends written as \n) and %j (the message as the inside of a
// JSON string). A flag that nobody knows stands for itself.
func (l *Logs) SetFormat(format string) { l.format.Store(compilePattern(format)) }

// SetLevel changes the level of all components.
func (l *Logs) SetLevel(level slog.Level) {
	for i := range l.levels {
		l.levels[i].Store(int64(level))
	}
}

// SetComponentLevel changes the level of one component.
func (l *Logs) SetComponentLevel(name string, level slog.Level) error {
	i, ok := componentIndex(name)
	if !ok {
		return fmt.Errorf("invalid component specified '%s'", name)
	}
	l.levels[i].Store(int64(level))
	return nil
}

// ComponentLevel is the level of one component, by name.
type ComponentLevel struct {
	Name  string
	Level slog.Level
}

// Levels lists the components in Envoy's order.
func (l *Logs) Levels() []ComponentLevel {
	out := make([]ComponentLevel, len(names))
	for i, name := range names {
		out[i] = ComponentLevel{name, slog.Level(l.levels[i].Load())}
	}
	return out
}

// ParseComponentLevels reads --component-log-level: "upstream:debug,config:trace".
func ParseComponentLevels(s string) ([]ComponentLevel, error) {
	if s == "" {
		return nil, nil
	}
	var out []ComponentLevel
	for one := range strings.SplitSeq(s, ",") {
		name, text, ok := strings.Cut(one, ":")
		if !ok || strings.Contains(text, ":") {
			return nil, fmt.Errorf("component log level not correctly specified '%s'", one)
		}
		level, err := ParseLevel(text)
		if err != nil {
			return nil, err
		}
		if _, ok := componentIndex(name); !ok {
			return nil, fmt.Errorf("invalid component specified '%s'", name)
		}
		out = append(out, ComponentLevel{name, level})
	}
	return out, nil
}

// Component makes the logger of a component. A name that isn't one of Envoy's is a mistake in our
// own code, and logs as "misc".
func (l *Logs) Component(name string) *slog.Logger {
	i, ok := componentIndex(name)
	if !ok {
		i, _ = componentIndex("misc")
	}
	return slog.New(&handler{logs: l, component: i})
}

// Flush waits until everything that was logged is written, or ctx ends.
func (l *Logs) Flush(ctx context.Context) { l.out.flush(ctx) }

// Dropped counts the lines that were lost because they came too fast.
func (l *Logs) Dropped() uint64 { return l.out.lost.Load() }

func componentIndex(name string) (int, bool) {
	for i := range names {
		if names[i] == name {
			return i, true
		}
	}
	return 0, false
}

// handler is the slog.Handler of one component.
type handler struct {
	logs      *Logs
	component int
	prefix    string // of attribute names: the open groups
	attrs     string // rendered attributes of With
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return int64(level) >= h.logs.levels[h.component].Load()
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	message := append(make([]byte, 0, 256), r.Message...)
	message = append(message, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		message = appendAttr(message, h.prefix, a)
		return true
	})
	rec := record{time: r.Time, level: r.Level, component: names[h.component], message: message}
	if rec.time.IsZero() {
		rec.time = time.Now()
	}
	if r.PC != 0 {
		frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
		rec.file, rec.line, rec.function = frame.File, frame.Line, frame.Function
	}
	line := h.logs.format.Load().append(make([]byte, 0, len(message)+128), &rec)
	h.logs.out.write(append(line, '\n'))
	return nil
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *h
	text := []byte(h.attrs)
	for _, a := range attrs {
		text = appendAttr(text, h.prefix, a)
	}
	out.attrs = string(text)
	return &out
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	out := *h
	out.prefix += name + "."
	return &out
}
