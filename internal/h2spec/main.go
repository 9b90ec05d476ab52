// Command h2spec runs the conformance tests of the program of that name against Envoy and against the
// sidecar, with the same config, and fails if a case that Envoy passes fails with the sidecar. What
// both fail is only listed: compatibility is the measure.
//
//	h2spec -tool .cache/bin/h2spec [-v]
package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sidecar/internal/peer/locate"
	"sidecar/internal/peer/process"
)

//go:embed bootstrap.yaml
var bootstrap string

func main() {
	tool := flag.String("tool", "", "path of h2spec")
	verbose := flag.Bool("v", false, "list the cases that both fail")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *tool, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "h2spec:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, tool string, verbose bool) error {
	root, err := locate.Root()
	if err != nil {
		return err
	}
	envoy, err := locate.Envoy(root)
	if err != nil {
		return err
	}
	sidecar, err := locate.Sidecar(root)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "h2spec")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	port, stop, err := upstream(ctx)
	if err != nil {
		return err
	}
	defer stop()
	// Both at once: the tool mostly waits for what must not come.
	type result struct {
		report report
		err    error
	}
	theirs := make(chan result, 1)
	go func() {
		r, err := test(ctx, tool, port, proxy{"envoy", envoy, dir})
		theirs <- result{r, err}
	}()
	ours, err := test(ctx, tool, port, proxy{"sidecar", sidecar, dir})
	want := <-theirs
	if err := errors.Join(want.err, err); err != nil {
		return err
	}
	return compare(out, want.report, ours, verbose)
}

// answerAfter leaves time for what the tool sends behind a request: it is to be judged while the
// request runs.
const answerAfter = 20 * time.Millisecond

// upstream serves HTTP/1.1 on a free port: it answers once it has read the request.
func upstream(ctx context.Context) (port string, stop func(), err error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	_, port, err = net.SplitHostPort(ln.Addr().String())
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(answer)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln) // ends with stop
	}()
	return port, func() { _ = srv.Close(); <-done }, err
}

func answer(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // the proxy has given the request up
	}
	wait := time.NewTimer(answerAfter)
	defer wait.Stop()
	select {
	case <-wait.C:
		_, _ = io.WriteString(w, "an answer of some bytes")
	case <-r.Context().Done():
	}
}

// proxy is what to run, and where its files go.
type proxy struct{ name, binary, dir string }

// test starts a proxy and returns what the tool says of it.
func test(ctx context.Context, tool, upstream string, x proxy) (report, error) {
	p, port, err := x.start(ctx, upstream)
	if err != nil {
		return nil, err
	}
	xml := filepath.Join(x.dir, x.name+".xml")
	cmd := exec.CommandContext(ctx, tool, "-h", "127.0.0.1", "-p", strconv.Itoa(port),
		"-S", "-o", "1", "-j", xml)
	// Failed cases are its exit status; without a report, it is an error.
	text, toolErr := cmd.CombinedOutput()
	if !p.Alive() {
		return nil, fmt.Errorf("%s has ended:\n%s", x.name, p.LogTail(2000))
	}
	if err := p.Stop(); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(xml)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)\n%s", err, toolErr, bytes.TrimSpace(text))
	}
	return parse(data)
}

// start tries other ports if somebody took those that were free.
func (x proxy) start(ctx context.Context, upstream string) (*process.Process, int, error) {
	var last error
	for range 3 {
		ports, err := process.FreePorts(2)
		if err != nil {
			return nil, 0, err
		}
		config := strings.NewReplacer("ADMIN_PORT", strconv.Itoa(ports[0]),
			"LISTENER_PORT", strconv.Itoa(ports[1]), "UPSTREAM_PORT", upstream)
		p, err := process.Start(ctx, process.Options{
			Name: x.name, Binary: x.binary, Config: []byte(config.Replace(bootstrap)), AdminPort: ports[0],
			Dir: x.dir,
		})
		if err == nil {
			return p, ports[1], nil
		}
		last = err
	}
	return nil, 0, last
}
