package dnscache

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sidecar/api/stats"
	"sidecar/cluster/discover"
)

// names is a resolver that takes a second for each answer.
type names struct {
	mu     sync.Mutex
	addrs  map[string][]netip.Addr
	ttl    time.Duration
	asked  int
	silent bool
}

var errServer = errors.New("server failure")

func (n *names) Lookup(ctx context.Context, name string, _ discover.Family) (discover.Answer, error) {
	wait := time.Second
	if n.silent {
		wait = time.Hour
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return discover.Answer{}, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	a, ok := n.addrs[name]
	if !ok {
		return discover.Answer{}, errServer
	}
	return discover.Answer{Addrs: a, TTL: n.ttl}, nil
}

func (n *names) set(name string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []netip.Addr{}
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	n.addrs[name] = list
}

func (n *names) drop(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.addrs, name)
}

func (n *names) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// seen records what an observer is told.
type seen struct {
	mu    sync.Mutex
	lines []string
}

func (s *seen) OnAddresses(r Result) { s.note(fmt.Sprint(r.Name, " ", r.Addrs)) }
func (s *seen) OnRemoved(n Name)     { s.note(fmt.Sprint(n, " gone")) }

func (s *seen) note(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
}

func (s *seen) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.lines
	s.lines = nil
	return out
}

func conf() *Config {
	return &Config{
		Name: "x", Refresh: time.Minute, MinRefresh: 5 * time.Second, HostTTL: 5 * time.Minute,
		QueryTimeout: 5 * time.Second, MaxHosts: 2, MaxPending: 3,
	}
}

type rig struct {
	*Cache
	t     *testing.T
	names *names
	store *stats.Store
	set   *Caches
}

func newRig(t *testing.T, conf *Config) *rig {
	t.Helper()
	r := &rig{t: t, names: &names{addrs: map[string][]netip.Addr{}}, store: stats.New()}
	r.set = NewCaches(Env{
		Ctx: t.Context(), Scope: r.store.Root(), Random: func() uint64 { return 1<<63 - 1 },
		NewResolver: func(discover.ResolverOptions) discover.Resolver { return r.names },
	})
	r.Cache = r.set.Acquire(conf)
	return r
}

// load waits for the answer.
func (r *rig) load(n Name) Result {
	r.t.Helper()
	got := make(chan Result, 1)
	res, known, _ := r.Load(n, func(x Result) { got <- x })
	if known {
		return res
	}
	return <-got
}

func (r *rig) stat(name string) (n int64) {
	r.store.Each(false, func(s *stats.Sample) {
		if string(s.Name) == "dns_cache.x."+name {
			if n = int64(s.Counter()); s.Kind == stats.KindGauge {
				n = s.Gauge()
			}
		}
	})
	return n
}

var a80 = Name{"a", 80}

func TestLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, conf())
		defer r.Release()
		o := &seen{}
		defer r.Observe(o)()
		r.names.set("a", "10.0.0.1", "::1")
		if _, known, _ := r.Load(a80, func(Result) {}); known {
			t.Fatal("known before it was asked for")
		}
		want := "[10.0.0.1:80 [::1]:80]"
		if got := r.load(a80); fmt.Sprint(got.Addrs) != want || got.Err != nil {
			t.Fatalf("got %v", got)
		}
		if _, known, _ := r.Load(a80, nil); !known {
			t.Error("not known afterwards")
		}
		if got := o.take(); !slices.Equal(got, []string{"a:80 " + want}) {
			t.Errorf("the observer was told %q", got)
		}
		if a, s, n := r.stat("dns_query_attempt"), r.stat("dns_query_success"), r.stat("num_hosts"); a != 1 || s != 1 || n != 1 {
			t.Errorf("%d attempts, %d successes, %d hosts", a, s, n)
		}
	})
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, conf())
		defer r.Release()
		r.names.set("a", "10.0.0.1")
		r.load(a80)
		o := &seen{}
		defer r.Observe(o)()
		o.take()
		r.names.set("a", "10.0.0.2")
		r.names.mu.Lock()
		r.names.ttl = 30 * time.Second
		r.names.mu.Unlock()
		time.Sleep(7 * time.Second) // at least dns_min_refresh_rate, and the lookup
		synctest.Wait()
		if got := o.take(); !slices.Equal(got, []string{"a:80 [10.0.0.2:80]"}) {
			t.Errorf("the observer was told %q", got)
		}
		asked := r.names.count()
		time.Sleep(29 * time.Second)
		if r.names.count() != asked {
			t.Error("asked before the TTL was over")
		}
		r.names.drop("a")
		time.Sleep(10 * time.Second)
		if got := r.load(a80); len(got.Addrs) != 1 {
			t.Errorf("a failure takes the addresses away: %v", got)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if got := o.take(); !slices.Equal(got, []string{"a:80 gone"}) {
			t.Errorf("unused for long, the observer was told %q", got)
		}
		if n := r.stat("num_hosts"); n != 0 {
			t.Errorf("%d hosts are left", n)
		}
	})
}

func TestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, conf())
		defer r.Release()
		if got := r.load(a80); !errors.Is(got.Err, errServer) {
			t.Errorf("got %v", got)
		}
		if got, known, _ := r.Load(a80, nil); !known || !errors.Is(got.Err, errServer) {
			t.Errorf("a failure is not remembered: %v", got)
		}
		r.names.set("a", "10.0.0.1")
		time.Sleep(62 * time.Second)
		if got := r.load(a80); len(got.Addrs) != 1 {
			t.Errorf("not asked again: %v", got)
		}
		r.names.set("b")
		if got := r.load(Name{"b", 80}); !errors.Is(got.Err, ErrNoAddress) {
			t.Errorf("got %v", got)
		}
	})
}

func TestFailure_Forgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := conf()
		c.ForgetFailures = true
		r := newRig(t, c)
		defer r.Release()
		r.load(a80)
		r.names.set("a", "10.0.0.1")
		if got := r.load(a80); len(got.Addrs) != 1 {
			t.Errorf("not asked anew: %v", got)
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, conf())
		defer r.Release()
		r.names.silent = true
		if got := r.load(a80); got.Err == nil || r.stat("dns_query_timeout") != 1 {
			t.Errorf("got %v, %d timeouts", got, r.stat("dns_query_timeout"))
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, conf())
		defer r.Release()
		_, _, cancel := r.Load(a80, func(Result) { t.Error("told after it was cancelled") })
		r.Load(Name{"b", 80}, func(Result) {})
		if got := r.load(Name{"c", 80}); !errors.Is(got.Err, ErrHostOverflow) {
			t.Errorf("a third name: %v", got)
		}
		r.Load(a80, func(Result) {})
		if got := r.load(a80); !errors.Is(got.Err, ErrPendingOverflow) || r.stat("circuit_breakers.rq_pending_open") != 1 {
			t.Errorf("a fourth that waits: %v", got)
		}
		cancel()
		if _, known, _ := r.Load(a80, func(Result) {}); known {
			t.Error("no room after one was cancelled")
		}
		if o, p := r.stat("host_overflow"), r.stat("dns_rq_pending_overflow"); o != 1 || p != 1 {
			t.Errorf("counted %d and %d", o, p)
		}
		time.Sleep(2 * time.Second)
	})
}

func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := conf()
		c.Preresolve = []Name{a80}
		r := newRig(t, c)
		time.Sleep(2 * time.Second)
		if n := r.stat("num_hosts"); n != 1 {
			t.Errorf("%d hosts to begin with", n)
		}
		again := *c
		if err := r.set.Check(&again); err != nil {
			t.Error(err)
		}
		if x := r.set.Acquire(&again); x != r.Cache {
			t.Error("two caches of one name")
		}
		other := *c
		other.MaxHosts = 9
		if err := r.set.Check(&other); err == nil {
			t.Error("another configuration is taken")
		}
		r.Release()
		if got := r.load(a80); got.Err == nil {
			t.Errorf("got %v", got)
		}
		r.Release()
		if n := r.stat("host_added"); n != 0 {
			t.Error("the statistics are left")
		}
		if got := r.load(Name{"z", 1}); !errors.Is(got.Err, errClosed) {
			t.Errorf("after its end: %v", got)
		}
	})
}
