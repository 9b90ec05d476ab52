package dnscache

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"strconv"
	"sync"
	"time"

	"sidecar/api/stats"
	"sidecar/cluster/discover"
)

// Config is a compiled DnsCacheConfig. It never changes.
type Config struct {
	Name     string
	Family   discover.Family
	Resolver discover.ResolverOptions
	// Refresh is the interval for names that don't resolve, MinRefresh the least for those that do, which
	// otherwise is their TTL.
	Refresh, MinRefresh time.Duration
	// FailureBase and FailureMax bound the back-off after failures; 0 means Refresh.
	FailureBase, FailureMax time.Duration
	// ForgetFailures has a name that doesn't resolve asked for anew by the next who wants it.
	ForgetFailures bool
	// HostTTL is how long a name is kept unused.
	HostTTL time.Duration
	// QueryTimeout bounds a lookup; 0 leaves that to the resolver.
	QueryTimeout time.Duration
	MaxHosts     uint32
	MaxPending   uint32
	// Preresolve are names to begin with.
	Preresolve []Name
}

// Name is what is looked up: a host, and the port that goes with it.
type Name struct {
	Host string
	Port uint16
}

// String returns the name as statistics and logs show it.
func (n Name) String() string { return net.JoinHostPort(n.Host, strconv.Itoa(int(n.Port))) }

// Env is what caches work with.
type Env struct {
	Ctx         context.Context //nolint:containedctx // the life of the process
	Scope       *stats.Scope
	NewResolver func(discover.ResolverOptions) discover.Resolver
	Random      func() uint64
}

// Caches are those of the process, by name.
type Caches struct {
	env Env

	mu   sync.Mutex // guards below
	live map[string]*Cache
}

// NewCaches makes a set without caches.
func NewCaches(env Env) *Caches { return &Caches{env: env, live: map[string]*Cache{}} }

// Check tells whether a cache of that configuration may be had: not if there is one of its name that is
// configured otherwise. A nil set has no cache to differ from.
func (s *Caches) Check(conf *Config) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.live[conf.Name]; c != nil && !reflect.DeepEqual(c.conf, conf) {
		return fmt.Errorf("config specified DNS cache '%s' with different settings", conf.Name)
	}
	return nil
}

// Acquire returns the cache of a configuration; Release gives it back. One whose name is in use with
// another configuration, which Check refuses before, is not shared.
func (s *Caches) Acquire(conf *Config) *Cache {
	s.mu.Lock()
	c := s.live[conf.Name]
	shared := c == nil || reflect.DeepEqual(c.conf, conf)
	if c != nil && shared {
		c.users++
		s.mu.Unlock()
		return c
	}
	c = newCache(s, conf)
	c.users = 1
	if shared {
		s.live[conf.Name] = c
	}
	s.mu.Unlock()
	for _, n := range conf.Preresolve {
		_, _, _ = c.Load(n, func(Result) {})
	}
	return c
}

// Release gives back a cache of Acquire; the last one to do so ends it.
func (c *Cache) Release() {
	s := c.set
	s.mu.Lock()
	c.users--
	last := c.users == 0
	if last && s.live[c.conf.Name] == c {
		delete(s.live, c.conf.Name)
	}
	s.mu.Unlock()
	if last {
		c.close()
	}
}
