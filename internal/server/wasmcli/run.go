package wasmcli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	wasmv1 "sidecar/api/sidecar/wasm/v1"
	"sidecar/api/stream"
	"sidecar/internal/log"
	"sidecar/internal/task"
	"sidecar/wasmhost"
	wasmhttp "sidecar/wasmhost/plugin/http"
)

const runHelp = `Runs a plugin on made-up requests and prints every callback, every call of the host, the
result, memory and time. Flags describe one request; a scenario file describes many:

  plugin: {configuration: "...", environment: {A: b}}
  clusters: {auth: [{status: 200, headers: {x-user: me}, delay: 10ms}]}
  streams:
  - request: {method: POST, path: /a, headers: ["x-a: b"], chunks: [one, two], trailers: {t: v}}
    response: {status: 200, body: hello}
    repeat: 3
  together: false   # true: the streams run at once
  wait: 1s          # go on that long, for ticks`

// runFlags are the command's own, beside what they say of the scenario.
type runFlags struct {
	scenario string
	quiet    bool
	level    string
	repeat   int
	chunk    int
	request  string
	// texts are written @FILE to be read from one.
	config, vmConfig, body, responseBody string
	status                               int
	header, trailer                      lines
	responseHeader, responseTrailer      lines
	env, cluster                         lines
	wait, timeout                        time.Duration
	plugin                               pluginSpec
	deadline                             time.Duration
}

// lines collects a flag that may be given more than once.
type lines []string

// String implements flag.Value.
func (l *lines) String() string { return strings.Join(*l, ", ") }

// Set implements flag.Value.
func (l *lines) Set(v string) error {
	*l = append(*l, v)
	return nil
}

func (f *runFlags) define(fs *flag.FlagSet) {
	fs.StringVar(&f.scenario, "scenario", "", "`file` in YAML or JSON with streams, clusters and the plugin's configuration")
	fs.StringVar(&f.config, "config", "", "plugin configuration; @`file` reads it from one")
	fs.StringVar(&f.vmConfig, "vm-config", "", "VM configuration; @`file` reads it from one")
	fs.Var(&f.env, "env", "environment variable `NAME=value` of the plugin")
	fs.StringVar(&f.plugin.Name, "name", "", "plugin `name`")
	fs.StringVar(&f.plugin.RootID, "root-id", "", "`id` of the root context")
	fs.StringVar(&f.plugin.VMID, "vm-id", "", "VM `id`")
	fs.StringVar(&f.plugin.FailurePolicy, "failure-policy", "", "FAIL_CLOSED (default), FAIL_OPEN or FAIL_RELOAD")
	fs.BoolVar(&f.plugin.AllowHeadersStop, "allow-headers-stop", false, "allow_on_headers_stop_iteration")
	fs.DurationVar(&f.deadline, "deadline", 0, "longest `time` of a callback; 1s by default")
	fs.Uint64Var(&f.plugin.MemoryBytes, "memory", 0, "most `bytes` of the plugin's memory; 1 GiB by default")
	fs.StringVar(&f.request, "request", "", "`line` such as \"POST /path\"")
	fs.Var(&f.header, "H", "request header `\"name: value\"`")
	fs.StringVar(&f.body, "body", "", "request body; @`file` reads it from one")
	fs.IntVar(&f.chunk, "chunk", 0, "cut bodies into pieces of `n` bytes")
	fs.Var(&f.trailer, "trailer", "request trailer `\"name: value\"`")
	fs.IntVar(&f.status, "status", 200, "`status` of the upstream's response")
	fs.Var(&f.responseHeader, "response-header", "response header `\"name: value\"`")
	fs.StringVar(&f.responseBody, "response-body", "", "response body; @`file` reads it from one")
	fs.Var(&f.responseTrailer, "response-trailer", "response trailer `\"name: value\"`")
	fs.Var(&f.cluster, "cluster", "what a cluster answers to call-outs: `NAME=STATUS[:BODY]`")
	fs.IntVar(&f.repeat, "repeat", 1, "send each request `n` times")
	fs.DurationVar(&f.wait, "wait", 0, "go on for that `time` after the last stream, for ticks")
	fs.DurationVar(&f.timeout, "timeout", 0, "how long a stream may be paused; 5s by default")
	fs.BoolVar(&f.quiet, "quiet", false, "print results only")
	fs.StringVar(&f.level, "log-level", "trace", "least `level` of log lines, as the plugin sees it too")
}

func runCommand(ctx context.Context, args []string, stdout, _ io.Writer) error {
	var f runFlags
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	f.define(fs)
	file, err := parse(fs, args, stdout, runHelp)
	if err != nil {
		return err
	}
	s, err := f.read()
	if err != nil {
		return &usageError{err}
	}
	level, err := log.ParseLevel(f.level)
	if err != nil {
		return &usageError{err}
	}
	code, err := readCode(file)
	if err != nil {
		return err
	}
	if _, err := readLayout(code); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if s.Plugin.Name == "" {
		s.Plugin.Name = "plugin"
	}
	return runScenario(ctx, s, code, newPrinter(stdout, f.quiet, level))
}

// text reads a value that may stand in a file.
func text(value string) (string, error) {
	file, ok := strings.CutPrefix(value, "@")
	if !ok {
		return value, nil
	}
	data, err := os.ReadFile(file)
	return string(data), err
}

// read makes the scenario: the file's, over which the flags count.
func (f *runFlags) read() (*scenario, error) {
	s := new(scenario)
	if f.scenario != "" {
		var err error
		if s, err = readScenario(f.scenario); err != nil {
			return nil, err
		}
	}
	var errs []error
	fail := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	set := func(to *string, value string) {
		if value != "" {
			var err error
			*to, err = text(value)
			fail(err)
		}
	}
	p := &s.Plugin
	set(&p.Configuration, f.config)
	set(&p.VMConfiguration, f.vmConfig)
	p.Name, p.RootID, p.VMID = cmp.Or(f.plugin.Name, p.Name), cmp.Or(f.plugin.RootID, p.RootID), cmp.Or(f.plugin.VMID, p.VMID)
	p.FailurePolicy = cmp.Or(f.plugin.FailurePolicy, p.FailurePolicy)
	p.AllowHeadersStop = p.AllowHeadersStop || f.plugin.AllowHeadersStop
	if f.deadline != 0 {
		p.Deadline = duration(f.deadline)
	}
	if f.plugin.MemoryBytes != 0 {
		p.MemoryBytes = f.plugin.MemoryBytes
	}
	for _, e := range f.env {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			fail(fmt.Errorf("an environment variable is NAME=value, not %q", e))
			continue
		}
		if p.Environment == nil {
			p.Environment = map[string]string{}
		}
		p.Environment[name] = value
	}
	for _, c := range f.cluster {
		name, a, err := parseCluster(c)
		fail(err)
		if s.Clusters == nil {
			s.Clusters = map[string][]answer{}
		}
		s.Clusters[name] = []answer{a}
	}
	if len(s.Streams) == 0 {
		x, err := f.exchange()
		fail(err)
		s.Streams = []exchange{x}
	} else if f.request != "" || f.body != "" || len(f.header) > 0 {
		fail(errors.New("a request is given by flags and streams by --scenario: one or the other"))
	}
	f.times(s)
	return s, errors.Join(errs...)
}

func (f *runFlags) times(s *scenario) {
	for i := range s.Streams {
		x := &s.Streams[i]
		x.Repeat = max(1, x.Repeat) * max(1, f.repeat)
		x.Request.Chunks = x.Request.pieces(f.chunk)
		x.Response.Chunks = x.Response.pieces(f.chunk)
	}
	if f.wait != 0 {
		s.Wait = duration(f.wait)
	}
	if f.timeout != 0 {
		s.Timeout = duration(f.timeout)
	}
	if s.Timeout <= 0 {
		s.Timeout = duration(5 * time.Second)
	}
}

// exchange is the one request that flags describe.
func (f *runFlags) exchange() (exchange, error) {
	var x exchange
	var errs []error
	x.Request.Method, x.Request.Path, _ = strings.Cut(strings.TrimSpace(f.request), " ")
	if strings.HasPrefix(x.Request.Method, "/") {
		x.Request.Method, x.Request.Path = "", x.Request.Method
	}
	x.Response.Status = f.status
	for _, list := range []struct {
		from lines
		to   *pairs
	}{
		{f.header, &x.Request.Headers},
		{f.trailer, &x.Request.Trailers},
		{f.responseHeader, &x.Response.Headers},
		{f.responseTrailer, &x.Response.Trailers},
	} {
		for _, line := range list.from {
			h, err := headerLine(line)
			errs = append(errs, err)
			*list.to = append(*list.to, h)
		}
	}
	var err error
	x.Request.Body, err = text(f.body)
	errs = append(errs, err)
	x.Response.Body, err = text(f.responseBody)
	return x, errors.Join(append(errs, err)...)
}

// message is the plugin's configuration as the proxy gets it.
func (p *pluginSpec) message(code []byte) (*wasmv1.Wasm, error) {
	vm := &wasmv3.VmConfig{
		VmId: p.VMID,
		Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineBytes{InlineBytes: code},
		}}},
		EnvironmentVariables: &wasmv3.EnvironmentVariables{KeyValues: p.Environment},
	}
	c := &wasmv3.PluginConfig{
		Name: p.Name, RootId: p.RootID, Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: vm},
		AllowOnHeadersStopIteration: wrapperspb.Bool(p.AllowHeadersStop),
	}
	for text, to := range map[string]**anypb.Any{p.Configuration: &c.Configuration, p.VMConfiguration: &vm.Configuration} {
		if text != "" {
			a, err := anypb.New(wrapperspb.String(text))
			if err != nil {
				return nil, err
			}
			*to = a
		}
	}
	if p.FailurePolicy != "" {
		v, ok := wasmv3.FailurePolicy_value[p.FailurePolicy]
		if !ok {
			return nil, fmt.Errorf("%q is no failure policy: FAIL_CLOSED, FAIL_OPEN or FAIL_RELOAD", p.FailurePolicy)
		}
		c.FailurePolicy = wasmv3.FailurePolicy(v)
	}
	if len(p.Capabilities) > 0 {
		vm.CapabilityRestrictionConfig = &wasmv3.CapabilityRestrictionConfig{
			AllowedCapabilities: map[string]*wasmv3.SanitizationConfig{},
		}
		for _, name := range p.Capabilities {
			vm.CapabilityRestrictionConfig.AllowedCapabilities[name] = &wasmv3.SanitizationConfig{}
		}
	}
	l := &wasmv1.Limits{MemoryBytes: p.MemoryBytes}
	if p.Deadline > 0 {
		l.StreamDeadline = durationpb.New(time.Duration(p.Deadline))
	}
	return &wasmv1.Wasm{Config: c, Limits: l}, nil
}

// errUnfinished is the outcome of a run in which a stream had no end, or the plugin failed.
var errUnfinished = errors.New("the plugin failed, or left a stream without an end")

func runScenario(ctx context.Context, s *scenario, code []byte, out *printer) error {
	msg, err := s.Plugin.message(code)
	if err != nil {
		return &usageError{err}
	}
	calls := &clusters{answers: s.Clusters, out: out, next: map[string]int{}, told: map[string]bool{}}
	h, err := wasmhost.NewHost(wasmhost.Options{
		Log: slog.New(out), Calls: calls, Concurrency: 1, Observer: out,
	})
	if err != nil {
		return err
	}
	f, err := compileFilter(h, msg)
	if err != nil {
		h.Close()
		return err
	}
	out.line("start:")
	begin := time.Now()
	if err := f.Warm(ctx); err != nil {
		h.Close()
		return err
	}
	started := time.Since(begin)
	r := runner{s: s, out: out, factory: f}
	r.all(ctx)
	r.waitFor(ctx, time.Duration(s.Wait))
	memory := h.MemoryBytes()
	out.line("\nend:")
	f.Retire()
	h.Close() // Waits for on_done and on_delete of the root.
	out.line("\ncompiled, started and configured in %s; memory %s", started.Round(time.Millisecond), size(int(memory)))
	out.summary()
	if r.unfinished || out.traps > 0 {
		return errUnfinished
	}
	return nil
}

// compileFilter makes the filter as the proxy does, from the table of its configuration types.
func compileFilter(h *wasmhost.Host, msg *wasmv1.Wasm) (*wasmhttp.Factory, error) {
	for _, e := range wasmhttp.Entries(h) {
		if _, ok := e.Config.(*wasmv1.Wasm); !ok {
			continue
		}
		made, err := e.Compile(msg, filter.Context{Name: msg.GetConfig().GetName()})
		if err != nil {
			return nil, err
		}
		if f, ok := made.(*wasmhttp.Factory); ok {
			return f, nil
		}
	}
	return nil, errors.New("the filter has no such configuration type")
}

// runner sends the streams.
type runner struct {
	s          *scenario
	out        *printer
	factory    *wasmhttp.Factory
	count      uint64
	unfinished bool
}

func (r *runner) all(ctx context.Context) {
	var batch []*sender
	for i := range r.s.Streams {
		x := &r.s.Streams[i]
		for range x.Repeat {
			d := r.newSender(x)
			batch = append(batch, d)
			if !r.s.Together {
				r.drive(ctx, batch)
				batch = batch[:0]
			}
		}
	}
	r.drive(ctx, batch)
}

// sender is one stream and what is left to send on it.
type sender struct {
	*driver
	to    stream.Target // of this life of the driver's monitor
	title string
	steps []stream.Event
}

func (r *runner) newSender(x *exchange) *sender {
	r.count++
	conn := &stream.ConnInfo{
		ID: r.count, Start: time.Now(), Listener: "wasm-run", TransportProtocol: "raw_buffer",
		Local: stream.IPAddr(netip.MustParseAddrPort("127.0.0.1:80")),
	}
	remote, err := netip.ParseAddrPort(cmp.Or(x.Source, "127.0.0.1:40000"))
	if err != nil {
		remote = netip.MustParseAddrPort("127.0.0.1:40000")
		r.out.line("! source %q is no address with a port", x.Source)
	}
	conn.Remote = stream.IPAddr(remote)
	conn.Direct = conn.Remote
	d := newDriver(x, conn, r.factory.NewFilter)
	s := &sender{driver: d, to: d.target()}
	method, _ := d.request.Get(":method")
	path, _ := d.request.Get(":path")
	s.title = fmt.Sprintf("stream %d: %s%s %s", r.count, prefix(x.Name), method, path)
	pieces, trailers := x.Request.pieces(0), x.Request.Trailers
	alone := len(pieces) == 0 && len(trailers) == 0
	s.steps = append(s.steps, stream.Event{Kind: stream.EventHeaders, Map: &d.request, End: alone})
	for _, p := range pieces {
		s.steps = append(s.steps, stream.Event{Kind: stream.EventData, Data: []byte(p)})
	}
	switch {
	case len(trailers) > 0:
		for _, t := range trailers {
			d.trailers[filter.Request].Add(t[0], t[1])
		}
		s.steps = append(s.steps, stream.Event{Kind: stream.EventTrailers, Map: &d.trailers[filter.Request]})
	case !alone: // As from HTTP/1: the end comes apart from the last bytes.
		s.steps = append(s.steps, stream.Event{Kind: stream.EventData, End: true})
	}
	return s
}

func prefix(name string) string {
	if name == "" {
		return ""
	}
	return name + ": "
}

// drive sends streams step by step in turn, and waits for their ends.
func (r *runner) drive(ctx context.Context, batch []*sender) {
	if len(batch) == 0 {
		return
	}
	for more := true; more; {
		more = false
		for _, s := range batch {
			if len(s.steps) == 0 {
				continue
			}
			if len(batch) > 1 || s.steps[0].Kind == stream.EventHeaders {
				r.out.line("\n%s", s.title)
			}
			e := s.steps[0]
			s.steps = s.steps[1:]
			more = more || len(s.steps) > 0
			stream.Do(func(t *stream.Turn) { s.to.Post(t, e) })
		}
	}
	for _, s := range batch {
		r.await(ctx, s)
	}
}

func (r *runner) await(ctx context.Context, s *sender) {
	timer := time.NewTimer(time.Duration(r.s.Timeout))
	defer timer.Stop()
	select {
	case <-s.done:
	case <-ctx.Done():
	case <-timer.C:
		r.unfinished = true
		where := make(chan string, 1)
		stream.Do(func(t *stream.Turn) {
			s.to.Post(t, stream.Event{Kind: stream.EventCall, Ref: func(*stream.Turn) { where <- s.where() }})
		})
		select {
		case w := <-where:
			r.out.line("! paused in %s for %s, and nothing resumed it: the client goes away", w, time.Duration(r.s.Timeout))
		case <-s.done:
		}
	}
	stream.Do(func(t *stream.Turn) { s.to.Post(t, stream.Event{Kind: stream.EventReset}) })
	<-s.done
	r.report(s)
}

func (r *runner) report(s *sender) {
	res := &s.result
	title := s.title
	if !res.local || res.upstream.headers != nil {
		r.out.line("%s\n  upstream gets%s", title, incomplete(&res.upstream))
		r.out.message(res.upstream)
		title = ""
	}
	if title != "" {
		r.out.line("%s", title)
	}
	if res.reset != "" {
		r.out.line("  the stream was reset: %s", res.reset)
	}
	if res.downstream.headers == nil {
		return
	}
	kind := ""
	if res.local {
		kind = " a local reply"
		if res.details != "" {
			kind += " (" + visible(res.details) + ")"
		}
	}
	r.out.line("  client gets%s%s", kind, incomplete(&res.downstream))
	r.out.message(res.downstream)
}

func incomplete(o *outcome) string {
	switch {
	case o.complete:
		return ":"
	case o.headers == nil:
		return " nothing"
	}
	return ", cut short:"
}

// waitFor lets ticks and the like go on.
func (r *runner) waitFor(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	r.out.line("\nwait %s:", d)
	_ = task.Sleep(ctx, d) // the end of ctx is seen at the next step
}
