package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sidecar/internal/compat/corpus"
	"sidecar/internal/compat/play"
	"sidecar/internal/peer/process"
)

// proxy is one of the two programs being compared.
type proxy struct {
	name   string
	binary string
}

// outcome is what came of a case: an observation or an error.
type outcome struct {
	obs *observation
	err error
}

// runGroup plays the chosen cases of g against a fresh proxy. An error means that the proxy didn't
// start; what goes wrong later belongs to its case.
func runGroup(ctx context.Context, p proxy, g *corpus.Group, chosen func(*corpus.Case) bool,
) (map[string]outcome, error) {
	r := &run{group: g}
	defer r.close()
	var err error
	// A port that was free may be taken by the time the proxy binds it.
	for range 3 {
		if err = r.start(ctx, p); err == nil || !strings.Contains(err.Error(), "in use") {
			break
		}
		r.close()
	}
	if err != nil {
		return nil, err
	}
	out := map[string]outcome{}
	for i := range g.Cases {
		c := &g.Cases[i]
		if !chosen(c) {
			continue
		}
		obs, err := r.play(ctx, c)
		out[c.Name] = outcome{obs, err}
		if !r.proc.Alive() {
			out[c.Name] = outcome{obs, fmt.Errorf("the proxy died: %s", r.proc.LogTail(2000))}
			break
		}
	}
	return out, nil
}

// run is one proxy with its stage.
type run struct {
	group     *corpus.Group
	dir       string
	stage     *play.Stage
	dead      *os.File // a bound socket that doesn't listen
	proc      *process.Process
	normalise *normaliser
	expander  corpus.Expander
	log       logReader
	fences    int
}

func (r *run) start(ctx context.Context, p proxy) error {
	var err error
	if r.dir, err = os.MkdirTemp("", "compat-"); err != nil {
		return err
	}
	if r.stage, err = play.NewStage(r.group.UpstreamNames()); err != nil {
		return err
	}
	if err := r.fillTable(); err != nil {
		return err
	}
	r.stage.SetExpander(r.expander)
	if r.normalise, err = newNormaliser(r.expander); err != nil {
		return err
	}
	if err := r.stage.MakeCertificates(r.dir); err != nil {
		return err
	}
	for name, content := range r.group.Files {
		content, err := r.expander.Expand(content)
		if err != nil {
			return fmt.Errorf("file %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	config, err := r.group.Build(r.expander)
	if err != nil {
		return err
	}
	admin, err := strconv.Atoi(r.expander["admin"])
	if err != nil {
		return err
	}
	r.log.path = filepath.Join(r.dir, "access.log")
	r.proc, err = process.Start(ctx, process.Options{
		Name: p.name, Binary: p.binary, Config: config, AdminPort: admin, Dir: r.dir,
		Args: append([]string{"--file-flush-interval-msec", "10"}, r.group.Args...),
	})
	return err
}

// fillTable chooses every port of the run.
func (r *run) fillTable() error {
	r.expander = corpus.Expander{"dir": r.dir}
	for name, port := range r.stage.Ports() {
		r.expander["up."+name] = strconv.Itoa(port)
	}
	ports, err := process.FreePorts(len(r.group.Listeners) + 2)
	if err != nil {
		return err
	}
	r.expander["admin"] = strconv.Itoa(ports[0])
	r.expander["listener."+corpus.Fence] = strconv.Itoa(ports[1])
	for i := range r.group.Listeners {
		r.expander["listener."+r.group.Listeners[i].Name] = strconv.Itoa(ports[i+2])
	}
	dead, port, err := deadPort()
	r.dead = dead
	r.expander["dead"] = strconv.Itoa(port)
	return err
}

// deadPort binds a port and doesn't listen: whoever connects is refused, and nobody else can have it.
func deadPort() (*os.File, int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	f := os.NewFile(uintptr(fd), "dead port")
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	in, ok := sa.(*syscall.SockaddrInet4)
	if !ok {
		return nil, 0, errors.Join(errors.New("not an IPv4 socket"), f.Close())
	}
	return f, in.Port, nil
}

func (r *run) close() {
	if r.proc != nil {
		r.proc.Kill()
	}
	if r.stage != nil {
		_ = r.stage.Close()
	}
	if r.dead != nil {
		_ = r.dead.Close()
	}
	if r.dir != "" {
		_ = os.RemoveAll(r.dir)
	}
	*r = run{group: r.group}
}

func (r *run) address(listener string) string {
	if listener == corpus.Admin {
		return net.JoinHostPort("127.0.0.1", r.expander["admin"])
	}
	return net.JoinHostPort("127.0.0.1", r.expander["listener."+listener])
}

func (r *run) play(ctx context.Context, c *corpus.Case) (*observation, error) {
	before, err := readStats(ctx, r.proc, statsPath)
	if err != nil {
		return nil, fmt.Errorf("stats before: %w", err)
	}
	result, err := r.stage.Play(ctx, c, r.address(c.Listener))
	if err != nil {
		return nil, err
	}
	if err := quiesce(ctx, r.proc); err != nil {
		return nil, err
	}
	log, err := r.fence(ctx)
	if err != nil {
		return nil, err
	}
	var stats map[string]int64
	if !c.NoStats {
		after, err := readStats(ctx, r.proc, statsPath)
		if err != nil {
			return nil, fmt.Errorf("stats after: %w", err)
		}
		stats = added(before, after)
		if c.OverHTTP2() {
			dropCompressed(stats)
		}
	}
	return r.normalise.observation(c, result, log, stats), nil
}

// fence sends a request of our own and returns the access-log lines up to that request's.
func (r *run) fence(ctx context.Context) ([]string, error) {
	r.fences++
	mark := fmt.Sprintf("fence /%d", r.fences)
	url := fmt.Sprintf("http://%s/%d", r.address(corpus.Fence), r.fences)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	// A connection each: its line is written when its stream ends, not when a client cares.
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	return r.log.until(mark, 3*time.Second)
}

// logReader follows a log file.
type logReader struct {
	path   string
	offset int64
}

func (l *logReader) until(mark string, within time.Duration) ([]string, error) {
	deadline := time.Now().Add(within)
	for {
		data, err := os.ReadFile(l.path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		data = data[min(l.offset, int64(len(data))):]
		if i := strings.Index(string(data), mark+"\n"); i >= 0 {
			l.offset += int64(i + len(mark) + 1)
			text := strings.TrimSuffix(string(data[:i]), "\n")
			if text == "" {
				return nil, nil
			}
			return strings.Split(text, "\n"), nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("access log: no line %q within %s; it ends with %q", mark, within,
				data[max(0, len(data)-300):])
		}
		time.Sleep(quietPollGap)
	}
}
