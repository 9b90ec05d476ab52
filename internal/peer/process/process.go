package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options say what to run. Config is the whole bootstrap; AdminPort must be the one in it.
type Options struct {
	Name        string // used for file names and messages
	Binary      string
	Config      []byte
	AdminPort   int
	Concurrency int
	Dir         string // where config, log and whatever the config names are written
	Args        []string
	Env         []string // added to the environment
	StartWithin time.Duration
}

// Process is a running proxy. Its methods may be called from any goroutine.
type Process struct {
	Name string
	PID  int
	Log  string // path of the proxy's own log

	admin  string
	cmd    *exec.Cmd
	client *http.Client
	exited chan struct{} // closed once the process was waited for
	status error         // of Wait; read only after exited
}

const (
	defaultStart = 20 * time.Second
	stopWithin   = 10 * time.Second
	readyEvery   = 5 * time.Millisecond
)

// Start writes the config, starts the proxy and returns once /ready answers 200. A proxy that exits
// before that, or isn't ready in time, is an error with the end of its log.
func Start(ctx context.Context, o Options) (*Process, error) {
	config := filepath.Join(o.Dir, o.Name+".yaml")
	if err := os.WriteFile(config, o.Config, 0o644); err != nil {
		return nil, err
	}
	logPath := filepath.Join(o.Dir, o.Name+".log")
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := append([]string{
		"-c", config,
		"--concurrency", strconv.Itoa(max(o.Concurrency, 1)),
		"--disable-hot-restart",
		"--log-level", "warning",
	}, o.Args...)
	cmd := exec.Command(o.Binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = o.Dir
	cmd.Env = append(os.Environ(), o.Env...)
	// A proxy must not outlive the run that started it, whatever ends that.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := startLocked(cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	p := &Process{
		Name: o.Name, PID: cmd.Process.Pid, Log: logPath, cmd: cmd,
		admin:  "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(o.AdminPort)),
		client: &http.Client{Timeout: 30 * time.Second},
		exited: make(chan struct{}),
	}
	go func() {
		p.status = cmd.Wait()
		close(p.exited)
	}()
	within := o.StartWithin
	if within == 0 {
		within = defaultStart
	}
	if err := p.waitReady(ctx, within); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%s: %w\n%s", o.Name, err, p.complaints())
	}
	return p, nil
}

func (p *Process) waitReady(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		body, last := p.Get(ctx, "/ready")
		if last == nil && strings.HasPrefix(body, "LIVE") {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("exited before it was ready: %w", exitError(p.status))
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w, last answer %q %w", context.Cause(ctx), body, last)
		case <-tick.C:
		}
	}
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// Get asks the admin interface; any status but 200 is an error that has the body.
func (p *Process) Get(ctx context.Context, path string) (string, error) {
	return p.ask(ctx, http.MethodGet, path)
}

// Post is Get for the endpoints that change something.
func (p *Process) Post(ctx context.Context, path string) (string, error) {
	return p.ask(ctx, http.MethodPost, path)
}

func (p *Process) ask(ctx context.Context, method, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.admin+path, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return string(body), fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, body)
	}
	return string(body), nil
}

// Alive reports whether the process still runs.
func (p *Process) Alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Stop ends the proxy with SIGTERM, then SIGKILL when it takes too long (which is an error), and
// waits for it.
func (p *Process) Stop() error {
	p.client.CloseIdleConnections()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(stopWithin)
	defer timer.Stop()
	select {
	case <-p.exited:
		return nil
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s: still there %s after SIGTERM", p.Name, stopWithin)
	}
}

// Kill ends the proxy and its children at once and waits for it.
func (p *Process) Kill() {
	p.client.CloseIdleConnections()
	_ = syscall.Kill(-p.PID, syscall.SIGKILL)
	<-p.exited
}

// LogTail returns the last n bytes of the proxy's log.
func (p *Process) LogTail(n int) string {
	data, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-n):])
}

// complaints returns the last lines of the log, each cut: Envoy prints the whole config in one.
func (p *Process) complaints() string {
	const lines, width = 12, 600
	all := strings.Split(strings.TrimSpace(p.LogTail(1<<20)), "\n")
	all = all[max(0, len(all)-lines):]
	for i, l := range all {
		if len(l) > width {
			all[i] = l[:width] + "..."
		}
	}
	return strings.Join(all, "\n")
}

// FreePorts returns n TCP ports of 127.0.0.1 that nobody listens on. Another process may take one
// before it is used; whoever starts a proxy on them tries again.
func FreePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		// Closed at the end, so that no port is given out twice.
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port) //nolint:forcetypeassert // a TCP listener's
	}
	return ports, nil
}
