package main

import (
	"bytes"
	"context"
	"encoding/json"
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

const (
	greeting       = "hello from the upstream\n"
	connectTimeout = time.Second
	pollInterval   = 50 * time.Millisecond
	stopTimeout    = 10 * time.Second
)

var errEnded = errors.New("the sidecar has ended by itself")

type address = *net.TCPAddr

// upstream answers every request with the greeting.
type upstream struct {
	addr   address
	server *http.Server
	done   chan struct{}
}

func startUpstream(ctx context.Context) (*upstream, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%v is no TCP address", l.Addr()), l.Close())
	}
	u := &upstream{addr: addr, done: make(chan struct{}), server: &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, greeting) // the sidecar is judged by its client
		}),
	}}
	go func() {
		defer close(u.done)
		_ = u.server.Serve(l) // ends with close
	}()
	return u, nil
}

func (u *upstream) close() {
	_ = u.server.Close() // nothing is lost with its connections
	<-u.done
}

// sidecar is the process under test.
type sidecar struct {
	cmd    *exec.Cmd
	dir    string
	log    bytes.Buffer
	ended  chan struct{}
	result error // set when ended is closed
}

func startSidecar(ctx context.Context, binary, management string) (*sidecar, error) {
	addr, err := net.ResolveTCPAddr("tcp", management)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sidecar-demo")
	if err != nil {
		return nil, err
	}
	p := &sidecar{dir: dir, ended: make(chan struct{})}
	conf := filepath.Join(dir, "bootstrap.yaml")
	text := fmt.Sprintf(bootstrap, addr.IP, addr.Port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p.cmd = exec.CommandContext(ctx, binary, "-c", conf, "--admin-address-path", p.adminFile())
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go func() {
		p.result = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *sidecar) adminFile() string { return filepath.Join(p.dir, "admin") }

// ready waits until the listener is there and gives its address.
func (p *sidecar) ready(ctx context.Context) (string, error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if addr, err := p.listenerAddress(ctx); err == nil {
			return addr, nil
		}
		select {
		case <-tick.C:
		case <-p.ended:
			return "", fmt.Errorf("%w\n%s", p.result, p.log.String())
		case <-ctx.Done():
			return "", errors.New("the sidecar didn't get ready in time")
		}
	}
}

func (p *sidecar) listenerAddress(ctx context.Context) (string, error) {
	admin, err := os.ReadFile(p.adminFile())
	if err != nil {
		return "", err
	}
	base := "http://" + strings.TrimSpace(string(admin))
	if _, err := get(ctx, base+"/ready"); err != nil {
		return "", err
	}
	text, err := get(ctx, base+"/listeners?format=json")
	if err != nil {
		return "", err
	}
	var list struct {
		Statuses []struct {
			LocalAddress struct {
				SocketAddress struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return "", err
	}
	if len(list.Statuses) == 0 {
		return "", errors.New("no listener yet")
	}
	a := list.Statuses[0].LocalAddress.SocketAddress
	return net.JoinHostPort(a.Address, strconv.Itoa(a.Port)), nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return io.ReadAll(res.Body)
}

// stop ends the process as an orchestrator would and tells whether it ended well.
func (p *sidecar) stop() error {
	var errs []error
	select {
	case <-p.ended:
		errs = append(errs, errEnded) // whoever waited for it has told the rest
	default:
		errs = append(errs, p.cmd.Process.Signal(syscall.SIGTERM))
		timer := time.AfterFunc(stopTimeout, func() { _ = p.cmd.Process.Kill() })
		<-p.ended
		timer.Stop()
		if p.result != nil {
			errs = append(errs, fmt.Errorf("the sidecar: %w\n%s", p.result, p.log.String()))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}
