// Command bench measures the sidecar against Envoy: one config for both, the same load, the same
// upstream, in turns, and CPU time from the kernel's accounts of the whole process tree. Envoy
// against a second Envoy is the noise. Each figure that the project promises is a line PASS or FAIL.
//
// The parts: config.go has the config, subject.go starts the proxies, the files named after a bench
// have the benches, and upstream and load have what they talk to and with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"time"

	"sidecar/internal/peer/locate"
)

// bench is one benchmark.
type bench struct {
	name string
	doc  string
	run  func(context.Context, *env) error
}

// benches is the table of all, in the order they run in.
func benches() []bench {
	return []bench{
		{"http1", "HTTP/1.1 keep-alive, 1 KB answers, 32 connections, saturated", runHTTP1},
		{"concurrency", "the same with --concurrency 2 against 1", runConcurrency},
		{"allocations", "heap allocations a request over 200,000 requests", runAllocations},
		{"wasm", "what a Rust SDK plugin that reads all headers and adds one costs", runWasm},
		{"tcp", "TCP proxy: round trips of 64 bytes on 32 connections", runTCP},
		{"tcp-bulk", "TCP proxy: bulk, both ways", runTCPBulk},
		{"idle", "resident memory of an idle process", runIdle},
		{"idle-connections", "resident memory of idle keep-alive connections", runIdleConnections},
		{"connections", "10,000 TCP connections at once", runConnections},
		{"clusters", "5,000 clusters with two hosts and a virtual host each", runClusters},
		{"swap", "a plugin replaced over ECDS 20 times a second under load", runSwap},
		{"swaps", "a plugin replaced 10,000 times", runManySwaps},
		{"plugins", "resident memory of 100 plugins from 10 modules", runPlugins},
		{"reload", "FAIL_RELOAD: 1,000 requests/s of which 10/s loop for ever", runReload},
		{"loops", "20,000 streams that loop for ever", runLoops},
		{"http2", "HTTP/2 both sides, 8 connections of 8 streams, 1 KB answers", runHTTP2},
		{"http2-allocations", "heap allocations a request of HTTP/2", runHTTP2Allocations},
		{"grpc", "unary gRPC, messages of 100 bytes, 8 connections of 8 streams", runGRPC},
		{"grpc-bulk", "gRPC streams of 16 MB each way, 50 at once, and one of 1 GiB", runGRPCBulk},
		{"tls-http1", "HTTP/1.1 keep-alive over TLS, 32 connections", runTLSHTTP1},
		{"handshakes", "TLS 1.3 handshakes, full and resumed, ECDSA P-256, X25519", runHandshakes},
		{"mtls", "two proxies with mutual TLS and HTTP/2 between them", runMutual},
		{"idle-http2", "resident memory of idle HTTP/2 connections, plain and mutual TLS", runIdleHTTP2},
		{"stalled", "two clients that never read beside 100 streams on one upstream connection", runStalled},
		{"rotation", "the certificate replaced every second under load", runRotation},
		{"leaks", "what is left over after 10,000 connections", runLeaks},
	}
}

type options struct {
	run      *regexp.Regexp
	short    bool
	list     bool
	jsonPath string
	markdown string
	plugin   string
	sidecar  string
	rounds   int
	seconds  int
	strict   bool
}

// env is what the benches share.
type env struct {
	options
	*report

	root    string
	dir     string // temporary files
	envoy   string // "" when there is none
	wrkPath string // "" when there is none
	h2load  string // "" when there is none
	up      *upstreams
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == upstreamRole {
		if err := serveUpstreams(); err != nil {
			fmt.Fprintln(os.Stderr, "bench upstream:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	failed, err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if failed {
		os.Exit(1)
	}
}

func parseFlags(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	pattern := fs.String("run", "", "regular expression over the names of benches")
	fs.BoolVar(&o.short, "short", false, "few and short rounds: shows that it works, not what it costs")
	fs.BoolVar(&o.list, "list", false, "list the benches")
	fs.StringVar(&o.jsonPath, "json", "", "write the results to this file as JSON")
	fs.StringVar(&o.markdown, "markdown", "", "replace the results in this document (docs/performance.md)")
	fs.StringVar(&o.plugin, "plugin", "", "Wasm module (default testdata/bench/plugin.wasm)")
	fs.StringVar(&o.sidecar, "sidecar", "", "binary to measure (default bin/sidecar)")
	fs.IntVar(&o.rounds, "rounds", 5, "times each proxy is measured, at least")
	fs.IntVar(&o.seconds, "seconds", 3, "length of one measurement")
	fs.BoolVar(&o.strict, "strict", false, "exit with 1 when a figure misses its target")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.short {
		o.rounds, o.seconds = 2, 1
	}
	if o.rounds < 1 || o.seconds < 1 {
		return o, errors.New("-rounds and -seconds must be at least 1")
	}
	var err error
	if o.run, err = regexp.Compile(*pattern); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	return o, nil
}

func command(ctx context.Context, args []string) (failed bool, err error) {
	o, err := parseFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if o.list {
		for _, b := range benches() {
			fmt.Printf("%-18s %s\n", b.name, b.doc)
		}
		return false, nil
	}
	e := &env{options: o, report: newReport(os.Stdout, o.short)}
	if err := e.prepare(ctx); err != nil {
		return false, err
	}
	defer e.close()
	for _, b := range benches() {
		if o.run.MatchString(b.name) && ctx.Err() == nil {
			e.runOne(ctx, &b)
		}
	}
	fmt.Printf("\n%d figures, %d missed their target, %d benches skipped (%s, %s)\n", len(e.Figures),
		e.failed(), len(e.Skipped), e.Machine, e.Date)
	if o.markdown != "" {
		if err := e.updateDocument(o.markdown); err != nil {
			return false, err
		}
	}
	if o.jsonPath != "" {
		if err := e.write(o.jsonPath); err != nil {
			return false, err
		}
	}
	return o.strict && e.failed() > 0, ctx.Err()
}

// errSkip marks an error that is a missing condition, not a fault.
var errSkip = errors.New("not possible here")

func (e *env) runOne(ctx context.Context, b *bench) {
	e.begin(b)
	start := time.Now()
	err := b.run(ctx, e)
	switch {
	case errors.Is(err, errSkip):
		e.skip(b.name, err)
	case err != nil:
		e.fail(b.name, err)
	}
	e.note("took %.0f s", time.Since(start).Seconds())
}

func (e *env) prepare(ctx context.Context) error {
	var err error
	if e.root, err = locate.Root(); err != nil {
		return err
	}
	if e.sidecar == "" {
		if e.sidecar, err = locate.Sidecar(e.root); err != nil {
			return err
		}
	}
	if e.sidecar, err = filepath.Abs(e.sidecar); err != nil {
		return err
	}
	if e.envoy, err = locate.Envoy(e.root); err != nil {
		fmt.Println("bench: no comparison with Envoy:", err)
	}
	if e.wrkPath, err = locate.Wrk().Find(); err != nil {
		fmt.Println("bench: no HTTP load:", err)
	}
	if e.h2load, err = locate.H2load().Find(); err != nil {
		fmt.Println("bench: no HTTP/2 load:", err)
	}
	if e.plugin == "" {
		e.plugin = filepath.Join(e.root, "testdata", "bench", "plugin.wasm")
	}
	if e.plugin, err = filepath.Abs(e.plugin); err != nil {
		return err
	}
	if e.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	e.up, err = startUpstreams(ctx)
	return err
}

func (e *env) close() {
	e.up.stop()
	_ = os.RemoveAll(e.dir)
}

// ours and theirs are the specs that most benches start from.
func (e *env) ours(s shape) spec {
	return spec{name: "sidecar", binary: e.sidecar, concurrency: 1, shape: s}
}

func (e *env) theirs(name string, s shape) spec {
	return spec{name: name, binary: e.envoy, concurrency: 1, shape: s}
}

func (e *env) needWrk() error {
	if e.wrkPath == "" {
		return fmt.Errorf("%w: no wrk", errSkip)
	}
	return nil
}

func (e *env) length() time.Duration { return time.Duration(e.seconds) * time.Second }
