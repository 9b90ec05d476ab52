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
	upstreamPorts

	cmd *exec.Cmd
}

// upstreamPorts are those of the servers: HTTP/1.1, bytes that come back, HTTP/2 with fixed answers,
// HTTP/2 with bodies of any size, and gRPC with messages that come back.
type upstreamPorts struct{ http, tcp, http2, sizes, grpc int }

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
	if _, err := fmt.Sscan(line, &u.http, &u.tcp, &u.http2, &u.sizes, &u.grpc); err != nil {
		u.stop()
		return nil, fmt.Errorf("upstreams: %q: %w", line, err)
	}
	return u, nil
}

func (u *upstreams) stop() {
	_ = u.cmd.Process.Kill()
	_ = u.cmd.Wait()
}

// serveUpstreams is the other process: it prints its ports and serves until it is killed.
func serveUpstreams() error {
	servers := []func(net.Listener) error{
		upstream.ServeHTTP, upstream.ServeEcho, upstream.ServeHTTP2, upstream.ServeSizes,
		upstream.ServeGRPC,
	}
	failed := make(chan error, len(servers))
	ports := make([]any, 0, len(servers))
	for _, serve := range servers {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ports = append(ports, port(l))
		go func() { failed <- serve(l) }()
	}
	fmt.Println(ports...)
	return <-failed
}

func port(l net.Listener) string {
	_, p, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return strconv.Itoa(0) // a TCP address always has a port
	}
	return p
}
