// Command demo shows a Wasm plugin being replaced while traffic flows. It runs a management server
// (go-control-plane), an upstream and the sidecar, which gets its listener, its cluster and the plugin
// over ADS; then it keeps connections busy while it pushes the plugin in version v1, v2, a broken one
// and v1 again. It prints what the sidecar answered to each push and which version served, and ends
// with 1 if a request failed, a connection was closed, or an answer came from the wrong version.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sidecar/internal/config/source"
	"sidecar/xds/xdstest"
)

// limit bounds the whole demo: something that hangs is a failure to be told of.
const limit = 60 * time.Second

// errNoAnswer takes the place of the management server's error, which holds all that happened.
var errNoAnswer = errors.New("the sidecar didn't answer a push in time")

type options struct {
	sidecar, plugin string
	connections     int
	phase           time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.sidecar, "sidecar", "bin/sidecar", "the binary")
	flag.StringVar(&o.plugin, "plugin", "testdata/plugins/version/version.wasm",
		"a plugin that adds x-plugin-version with its configuration and refuses the one that is \"broken\"")
	flag.IntVar(&o.connections, "connections", 32, "how many connections are kept busy")
	flag.DurationVar(&o.phase, "phase", 3*time.Second, "how long each version serves")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit+4*o.phase)
	defer cancel()
	if err := run(ctx, &o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options, out io.Writer) (err error) {
	plugin, err := filepath.Abs(o.plugin)
	if err != nil {
		return err
	}
	if _, err := os.Stat(plugin); err != nil {
		return err
	}
	up, err := startUpstream(ctx)
	if err != nil {
		return err
	}
	defer up.close()
	management, err := xdstest.Start("127.0.0.1:0") //nolint:contextcheck // it lives until Stop
	if err != nil {
		return err
	}
	defer management.Stop()
	d := &demo{options: o, out: out, management: management, plugin: plugin, start: time.Now()}
	listener, err := ingress()
	if err != nil {
		return err
	}
	management.Set(upstreamCluster(up.addr), listener)
	first := management.Set(pluginVersion(plugin, "v1"))

	p, err := startSidecar(ctx, o.sidecar, management.Addr())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	addr, err := p.ready(ctx)
	if err != nil {
		return err
	}
	if management.WaitACK(ctx, source.ExtensionType, first) != nil {
		return errNoAnswer
	}
	fmt.Fprintf(out, "management server on %s, sidecar on %s, upstream on %s, %d connections\n\n",
		management.Addr(), addr, up.addr, o.connections)
	return d.play(ctx, addr)
}

// demo is one run of the script.
type demo struct {
	*options

	out        io.Writer
	management *xdstest.Server
	plugin     string
	start      time.Time
	rejected   string // what the NACK said
}

// play pushes one version after another under load and judges what came of it.
func (d *demo) play(ctx context.Context, addr string) error {
	l := newLoad(addr)
	d.start = time.Now()
	l.expect("v1")
	if err := l.open(ctx, d.connections); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%8s  %-6s  %-6s  %s\n", "time", "pushed", "answer", "served until the next push")
	answer := "ACK"
	steps := []string{"v1", "v2", "broken", "v1"}
	for i, version := range steps {
		at := time.Since(d.start)
		if i > 0 {
			var err error
			if answer, err = d.push(ctx, l, version); err != nil {
				l.close()
				return err
			}
		}
		select {
		case <-time.NewTimer(d.phase).C:
		case <-ctx.Done():
			l.close()
			return ctx.Err()
		}
		fmt.Fprintf(d.out, "%6.2f s  %-6s  %-6s  %s\n", at.Seconds(), version, answer, served(l.take()))
	}
	l.close()
	fmt.Fprintf(d.out, "\nThe NACK: %s\n\n", d.rejected)
	return verdict(d.out, l)
}

// push replaces the plugin and waits for the sidecar's answer. From then on only the version that is in
// force may serve: the answer comes after the swap.
func (d *demo) push(ctx context.Context, l *load, version string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	before := l.expected()
	l.expect("") // either may serve while it changes
	pushed := d.management.Set(pluginVersion(d.plugin, version))
	if version != "broken" {
		if d.management.WaitACK(ctx, source.ExtensionType, pushed) != nil {
			return "", errNoAnswer
		}
		l.expect(version)
		return "ACK", nil
	}
	l.expect(before) // a version that doesn't start must never serve
	nack, err := d.management.WaitNACK(ctx, source.ExtensionType, "")
	if err != nil {
		return "", errNoAnswer
	}
	d.rejected = nack.Error
	return "NACK", nil
}

// served lists the answers by version.
func served(counts map[string]int) string {
	var parts []string
	for version, n := range counts {
		parts = append(parts, fmt.Sprintf("%s: %d", version, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func verdict(out io.Writer, l *load) error {
	fmt.Fprintf(out, "%d requests: %d failed, %d connections closed, %d answered by a wrong version\n",
		l.requests.Load(), l.failed.Load(), l.closed.Load(), l.wrong.Load())
	if l.failed.Load()+l.closed.Load()+l.wrong.Load() > 0 {
		return fmt.Errorf("something was dropped; the first: %v", l.first.Load())
	}
	if l.requests.Load() == 0 {
		return errors.New("no request was made")
	}
	fmt.Fprintln(out, "nothing was dropped")
	return nil
}
