package wasmcli

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"sidecar/internal/log"
	"sidecar/wasmhost/abi"
)

// printer writes what happens as it happens: an abi.Observer and a slog.Handler. Callbacks of several
// VMs can't interleave, as the command has one.
type printer struct {
	w     io.Writer
	quiet bool // results only
	level slog.Level

	mu    sync.Mutex // guards below and w
	calls int
	traps int
	costs map[string]*cost
	order []string
}

// cost of one callback.
type cost struct {
	n          int
	total, max time.Duration
}

func newPrinter(w io.Writer, quiet bool, level slog.Level) *printer {
	return &printer{w: w, quiet: quiet, level: level, costs: map[string]*cost{}}
}

// line writes a line between callbacks.
func (p *printer) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

func (p *printer) event(format string, args ...any) {
	if !p.quiet {
		fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// Entering implements abi.Observer.
func (p *printer) Entering(callback string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.event("  %s", callback)
}

// Left implements abi.Observer.
func (p *printer) Left(callback, result string, took time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name, _, _ := strings.Cut(callback, "(")
	c := p.costs[name]
	if c == nil {
		c = new(cost)
		p.costs[name] = c
		p.order = append(p.order, name)
	}
	c.n++
	c.total += took
	c.max = max(c.max, took)
	switch {
	case err != nil:
		p.traps++
		fmt.Fprintf(p.w, "    TRAP: %v\n", err)
	case result != "":
		p.event("    = %s  (%s)", result, round(took))
	default:
		p.event("    (%s)", round(took))
	}
}

// Called implements abi.Observer. A log line is shown as one, not as a call.
func (p *printer) Called(c abi.HostCall) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if c.Name == "proxy_log" && c.Err == nil && c.Status == "OK" {
		return
	}
	text := "      " + c.Name + "(" + c.Args + ")"
	if c.Status != "" {
		text += " = " + c.Status
	}
	if c.Results != "" {
		text += "  " + c.Results
	}
	if c.Err != nil {
		text += "  TRAP: " + c.Err.Error()
	}
	p.event("%s", text)
}

// Enabled implements slog.Handler.
func (p *printer) Enabled(_ context.Context, l slog.Level) bool { return l >= p.level }

// Handle implements slog.Handler.
func (p *printer) Handle(_ context.Context, r slog.Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "plugin" && a.Key != "root_id" && a.Value.String() != "" {
			// After the guest's stack there may be the engine's own.
			value, _, _ := strings.Cut(a.Value.String(), "\n\nStack backtrace:")
			text += " " + a.Key + "=" + value
		}
		return true
	})
	fmt.Fprintf(p.w, "      [%s] %s\n", log.LevelName(r.Level), visible(text))
	return nil
}

// WithAttrs and WithGroup implement slog.Handler.
func (p *printer) WithAttrs([]slog.Attr) slog.Handler { return p }

// WithGroup implements slog.Handler.
func (p *printer) WithGroup(string) slog.Handler { return p }

// visible keeps a plugin's text from steering the terminal.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if (r < ' ' && r != '\n' && r != '\t') || (r >= 0x7f && r < 0xa0) {
			return '?'
		}
		return r
	}, s)
}

func round(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(100 * time.Nanosecond)
	}
	return d.Round(10 * time.Microsecond)
}

// message writes headers, body and trailers.
func (p *printer) message(o outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := func(l [][2]string) {
		for _, h := range l {
			fmt.Fprintf(p.w, "    %s: %s\n", visible(h[0]), visible(h[1]))
		}
	}
	list(o.headers)
	if len(o.body) > 0 {
		fmt.Fprintf(p.w, "    body, %s: %s\n", size(len(o.body)), bodyText(o.body))
	}
	if len(o.trailers) > 0 {
		fmt.Fprintln(p.w, "    trailers:")
		list(o.trailers)
	}
}

// shownBody is how much of a body is written.
const shownBody = 1024

func bodyText(b []byte) string {
	shown := b[:min(len(b), shownBody)]
	more := ""
	if len(b) > shownBody {
		more = "..."
	}
	for i := 0; len(shown) < len(b) && i < 3 && !utf8.Valid(shown); i++ {
		shown = shown[:len(shown)-1]
	}
	if utf8.Valid(shown) {
		return strconv.Quote(string(shown)) + more
	}
	return hex.EncodeToString(shown[:min(len(shown), 64)]) + "..."
}

// summary writes what all the callbacks cost.
func (p *printer) summary() {
	p.mu.Lock()
	defer p.mu.Unlock()
	tw := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "callback\tcalls\tmean\tmost")
	for _, name := range p.order {
		c := p.costs[name]
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\n", name, c.n, round(c.total/time.Duration(c.n)), round(c.max))
	}
	tw.Flush()
	fmt.Fprintf(p.w, "host calls: %d\n", p.calls)
}
