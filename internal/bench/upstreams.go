package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"sidecar/internal/bench/upstream"
)

// upstreamRole is the first argument that makes the program the upstream of a bench.
const upstreamRole = "serve-upstreams"

// upstreams is the process with the servers.
type upstreams struct {
	http, tcp int // ports
	cmd       *exec.Cmd
}

func startUpstreams(ctx context.Context) (*upstreams, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, upstreamRole)
	// One core is the proxy's; more workers here would only change places with it more often.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	u := &upstreams{cmd: cmd}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("upstreams: %w", err), cmd.Wait())
	}
	if _, err := fmt.Sscanf(line, "%d %d", &u.http, &u.tcp); err != nil {
		u.stop()
		return nil, fmt.Errorf("upstreams: %q: %w", line, err)
	}
	return u, nil
}

func (u *upstreams) stop() {
	_ = u.cmd.Process.Kill()
	_ = u.cmd.Wait()
}

// serveUpstreams is the other process: it prints its two ports and serves until it is killed.
func serveUpstreams() error {
	web, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	echo, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(port(web), port(echo))
	failed := make(chan error, 2)
	go func() { failed <- upstream.ServeHTTP(web) }()
	go func() { failed <- upstream.ServeEcho(echo) }()
	return <-failed
}

func port(l net.Listener) string {
	_, p, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return strconv.Itoa(0) // a TCP address always has a port
	}
	return p
}
