package discover

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Resolver answers one question. It may be used from any goroutine.
type Resolver interface {
	// Lookup resolves a name for a family and blocks until there is an answer or ctx has ended. A
	// name without addresses is an empty Answer, not an error: the servers said so.
	Lookup(ctx context.Context, name string, family Family) (Answer, error)
}

// Answer is what a name stands for.
type Answer struct {
	Addrs []netip.Addr
	// TTL is the least of the records; 0 when there is none (the hosts file, or no records).
	TTL time.Duration
}

// ErrNoServers says that neither the cluster nor resolv.conf names a server.
var ErrNoServers = errors.New("no DNS server is known")

// maxLookups bounds the questions that are under way at once, and with them goroutines and sockets.
const maxLookups = 64

// resolver asks DNS servers.
type resolver struct {
	opt   ResolverOptions
	files files
	slots chan struct{}
}

// NewResolver makes a resolver that works by resolv.conf and the hosts file, as far as the options
// say nothing else.
func NewResolver(opt ResolverOptions) Resolver {
	return newResolver(opt, "/etc/resolv.conf", "/etc/hosts")
}

func newResolver(opt ResolverOptions, conf, hosts string) *resolver {
	return &resolver{
		opt:   opt,
		files: files{conf: conf, hosts: hosts},
		slots: make(chan struct{}, maxLookups),
	}
}

// Lookup implements Resolver.
func (r *resolver) Lookup(ctx context.Context, name string, family Family) (Answer, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		return Answer{Addrs: []netip.Addr{ip.Unmap()}}, nil
	}
	sys := r.files.read()
	switch family {
	case V4Only:
		return r.one(ctx, sys, name, true)
	case V6Only:
		return r.one(ctx, sys, name, false)
	case V4Preferred:
		return r.prefer(ctx, sys, name, true)
	case All:
		return r.both(ctx, sys, name)
	case Auto:
	}
	// Envoy: AUTO asks for IPv6 first and falls back to IPv4.
	return r.prefer(ctx, sys, name, false)
}

func (r *resolver) prefer(ctx context.Context, sys *system, name string, v4 bool) (Answer, error) {
	a, err := r.one(ctx, sys, name, v4)
	if err == nil && len(a.Addrs) > 0 {
		return a, nil
	}
	b, err2 := r.one(ctx, sys, name, !v4)
	if err2 != nil && err == nil {
		return a, nil // the first family has a valid, empty answer
	}
	return b, err2
}

func (r *resolver) both(ctx context.Context, sys *system, name string) (Answer, error) {
	var four Answer
	var fourErr error
	var wg sync.WaitGroup
	wg.Go(func() { four, fourErr = r.one(ctx, sys, name, true) })
	six, sixErr := r.one(ctx, sys, name, false)
	wg.Wait()
	switch {
	case fourErr != nil && sixErr != nil:
		return Answer{}, errors.Join(fourErr, sixErr)
	case fourErr != nil || len(four.Addrs) == 0:
		return six, sixErr
	case sixErr != nil || len(six.Addrs) == 0:
		return four, fourErr
	}
	return Answer{Addrs: append(four.Addrs, six.Addrs...), TTL: min(four.TTL, six.TTL)}, nil
}

// one resolves a name for one family: the hosts file, then each name of the search list.
func (r *resolver) one(ctx context.Context, sys *system, name string, v4 bool) (Answer, error) {
	if r.opt.FilterUnroutable && !isRoutable(v4) {
		return Answer{}, nil
	}
	if addrs := sys.lookup(name, v4); len(addrs) > 0 {
		return Answer{Addrs: addrs}, nil
	}
	servers := r.servers(sys)
	if len(servers) == 0 {
		return Answer{}, ErrNoServers
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
	var answer Answer
	var err error
	for _, full := range sys.candidates(name, !r.opt.NoSearch) {
		answer, err = r.ask(ctx, sys, servers, full, v4)
		if err != nil || len(answer.Addrs) > 0 {
			break
		}
	}
	return answer, err
}

func (r *resolver) servers(sys *system) []netip.AddrPort {
	switch {
	case len(r.opt.Servers) == 0:
		return sys.servers
	case r.opt.Fallback && len(sys.servers) > 0:
		return sys.servers
	}
	return r.opt.Servers
}
