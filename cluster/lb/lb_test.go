package lb_test

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/lb"
)

func addr(i int) stream.Addr { return stream.PipeAddr(strconv.Itoa(i)) }

// hosts makes one host for each weight; numbers go on from first.
func hosts(first int, attr host.Attributes, weights ...uint32) []*host.Host {
	var out []*host.Host
	for i, w := range weights {
		a := attr
		a.Weight = w
		out = append(out, host.New(addr(first+i), "", nil, &a))
	}
	return out
}

func up(first int, weights ...uint32) []*host.Host {
	return hosts(first, host.Attributes{}, weights...)
}

func down(first int, weights ...uint32) []*host.Host {
	return hosts(first, host.Attributes{Health: host.Unhealthy}, weights...)
}

func degraded(first int, weights ...uint32) []*host.Host {
	return hosts(first, host.Attributes{Health: host.Degraded}, weights...)
}

func join(hs ...[]*host.Host) (out []*host.Host) {
	for _, h := range hs {
		out = append(out, h...)
	}
	return out
}

func source(seed uint64) func() uint64 {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1))
	return func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Uint64()
	}
}

func set(specs ...host.Spec) *host.Set { return host.NewSet(specs, host.Policy{}, 1) }

// TestDistribution counts where 10,000 choices go; shares are in percent.
func TestDistribution(t *testing.T) {
	t.Parallel()
	const n = 10_000
	conf := func(p lb.Policy) lb.Config {
		return lb.Config{Policy: p, PanicThreshold: 50, Choices: 2, ActiveBias: 1}
	}
	weighted := conf(lb.RoundRobin)
	weighted.LocalityWeighted = true
	noPanic := conf(lb.RoundRobin)
	noPanic.PanicThreshold = 0
	failPanic := conf(lb.RoundRobin)
	failPanic.FailOnPanic = true
	a, b := &host.Locality{Zone: "a"}, &host.Locality{Zone: "b"}
	tests := []struct {
		name  string
		conf  lb.Config
		set   *host.Set
		want  []float64 // by host number; what is missing is nobody's
		slack float64
	}{
		{"round robin", conf(lb.RoundRobin), set(host.Spec{Hosts: up(0, 1, 1, 1, 1)}), []float64{25, 25, 25, 25}, 0.1},
		{"round robin by weight", conf(lb.RoundRobin), set(host.Spec{Hosts: up(0, 1, 2, 5)}), []float64{12.5, 25, 62.5}, 0.1},
		{"least request, all idle", conf(lb.LeastRequest), set(host.Spec{Hosts: up(0, 1, 1)}), []float64{50, 50}, 3},
		{"least request by weight", conf(lb.LeastRequest), set(host.Spec{Hosts: up(0, 1, 3)}), []float64{25, 75}, 0.1},
		{"random", conf(lb.Random), set(host.Spec{Hosts: up(0, 1, 1, 1, 1)}), []float64{25, 25, 25, 25}, 3},
		{"random ignores weights", conf(lb.Random), set(host.Spec{Hosts: up(0, 1, 9)}), []float64{50, 50}, 3},
		{"no hosts", conf(lb.RoundRobin), set(), nil, 0},
		{
			"unhealthy gets nothing", conf(lb.RoundRobin), set(host.Spec{Hosts: join(up(0, 1, 1, 1), down(3, 1))}),
			[]float64{33.3, 33.3, 33.3, 0},
			0.1,
		},
		{"panic", conf(lb.RoundRobin), set(host.Spec{Hosts: join(up(0, 1), down(1, 1, 1))}), []float64{33.3, 33.3, 33.3}, 0.1},
		{
			"draining hosts bring no panic", conf(lb.RoundRobin), set(host.Spec{
				Hosts: join(up(0, 1), hosts(1, host.Attributes{Health: host.Draining}, 1, 1)),
			}), []float64{100, 0, 0}, 0,
		},
		{"panic switched off", noPanic, set(host.Spec{Hosts: join(up(0, 1), down(1, 1, 1))}), []float64{100, 0, 0}, 0},
		{"all down, panic switched off", noPanic, set(host.Spec{Hosts: down(0, 1)}), nil, 0},
		{"all down", conf(lb.RoundRobin), set(host.Spec{Hosts: down(0, 1, 1)}), []float64{50, 50}, 0.1},
		{"fail in panic", failPanic, set(host.Spec{Hosts: down(0, 1, 1)}), nil, 0},
		{"second priority takes what the first can't", conf(lb.RoundRobin), set(
			host.Spec{Hosts: join(up(0, 1), down(1, 1)), Priority: 0}, // 50 % healthy x 1.4 = 70
			host.Spec{Hosts: up(2, 1), Priority: 1}), []float64{70, 0, 30}, 2},
		{"overprovisioned first priority", conf(lb.RoundRobin), set(
			host.Spec{Hosts: join(up(0, 1, 1, 1), down(3, 1)), Priority: 0}, // 75 x 1.4 > 100
			host.Spec{Hosts: up(4, 1), Priority: 1}), []float64{33.3, 33.3, 33.3, 0, 0}, 0.1},
		{"empty first priority", conf(lb.RoundRobin), set(host.Spec{Hosts: up(0, 1), Priority: 1}), []float64{100}, 0},
		{"degraded before the next priority's healthy ends", conf(lb.RoundRobin), set(
			host.Spec{Hosts: join(up(0, 1), degraded(1, 1, 1)), Priority: 0}), []float64{46, 27, 27}, 2},
		{"localities by weight", weighted, set(
			host.Spec{Locality: a, Weight: 1, Hosts: up(0, 1, 1)},
			host.Spec{Locality: b, Weight: 3, Hosts: up(2, 1)}), []float64{12.5, 12.5, 75}, 0.5},
		{"a locality without weight gets nothing", weighted, set(
			host.Spec{Locality: a, Weight: 0, Hosts: up(0, 1)},
			host.Spec{Locality: b, Weight: 3, Hosts: up(1, 1)}), []float64{0, 100}, 0},
		{"a half healthy locality gets 0.7 of its weight", weighted, set(
			host.Spec{Locality: a, Weight: 1, Hosts: join(up(0, 1), down(1, 1))},
			host.Spec{Locality: b, Weight: 1, Hosts: up(2, 1, 1)}), []float64{41.2, 0, 29.4, 29.4}, 0.5},
		{"locality weights are not asked for", conf(lb.RoundRobin), set(
			host.Spec{Locality: a, Weight: 1, Hosts: up(0, 1)},
			host.Spec{Locality: b, Weight: 3, Hosts: up(1, 1)}), []float64{50, 50}, 0.1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			balancer := lb.New(&tt.conf, lb.Env{Random: source(7)})
			got := map[string]int{}
			for range n {
				if h, _ := balancer.Pick(tt.set, &lb.Context{}); h != nil {
					got[h.Addr().String()]++
				}
			}
			sum := 0
			for i, want := range tt.want {
				count := got[addr(i).String()]
				sum += count
				share := float64(count) * 100 / n
				if share < want-tt.slack || share > want+tt.slack {
					t.Errorf("host %d got %.2f %%, want %.2f", i, share, want)
				}
			}
			for _, c := range got {
				sum -= c
			}
			if sum != 0 {
				t.Errorf("unexpected hosts were chosen: %v", got)
			}
		})
	}
}

func TestLeastRequestPrefersIdle(t *testing.T) {
	t.Parallel()
	for name, conf := range map[string]lb.Config{
		"two choices": {Policy: lb.LeastRequest, Choices: 2, ActiveBias: 1},
		"full scan":   {Policy: lb.LeastRequest, Choices: 2, ActiveBias: 1, FullScan: true},
		"by weight":   {Policy: lb.LeastRequest, Choices: 2, ActiveBias: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hs := up(0, 1, 1)
			if name == "by weight" {
				hs = up(0, 2, 3)
			}
			hs[0].Counters().RqActive.Add(100)
			b := lb.New(&conf, lb.Env{Random: source(3)})
			busy := 0
			s := set(host.Spec{Hosts: hs})
			for range 1000 {
				if h, _ := b.Pick(s, &lb.Context{}); h == hs[0] {
					busy++
				}
			}
			// Two choices fall on the busy host twice in a quarter of the cases.
			most := 300
			if name != "two choices" {
				most = 30
			}
			if busy > most {
				t.Fatalf("the busy host got %d of 1000", busy)
			}
		})
	}
}

func TestChoosesAnother(t *testing.T) {
	t.Parallel()
	hs := up(0, 1, 1)
	canary := hosts(2, host.Attributes{Canary: true}, 1)
	s := set(host.Spec{Hosts: append(hs, canary...)})
	b := lb.New(&lb.Config{PanicThreshold: 50}, lb.Env{Random: source(5)})
	for range 100 {
		h, _ := b.Pick(s, &lb.Context{Tried: hs[:1], MaxAttempts: 5, OmitCanary: true})
		if h != hs[1] {
			t.Fatalf("chose %s", h.Addr())
		}
	}
	// When every attempt is rejected the last one stands (Envoy: LoadBalancerBase::chooseHost).
	if h, _ := b.Pick(s, &lb.Context{Tried: append(hs, canary...), MaxAttempts: 3}); h == nil {
		t.Fatal("no host at all")
	}
}

func TestPanicIsTold(t *testing.T) {
	t.Parallel()
	b := lb.New(&lb.Config{PanicThreshold: 50}, lb.Env{Random: source(5)})
	if _, in := b.Pick(set(host.Spec{Hosts: down(0, 1)}), &lb.Context{}); !in {
		t.Fatal("panic was not told")
	}
	if _, in := b.Pick(set(host.Spec{Hosts: up(0, 1)}), &lb.Context{}); in {
		t.Fatal("panic was told without any")
	}
}

// TestTurnSurvivesUpdates: a stream of updates must not send everybody to the same host.
func TestTurnSurvivesUpdates(t *testing.T) {
	t.Parallel()
	hs := up(0, 1, 1, 1)
	b := lb.New(&lb.Config{PanicThreshold: 50}, lb.Env{Random: source(5)})
	got := map[*host.Host]int{}
	for range 300 {
		h, _ := b.Pick(set(host.Spec{Hosts: hs}), &lb.Context{})
		got[h]++
	}
	for _, h := range hs {
		if got[h] != 100 {
			t.Fatalf("host %s got %d of 300", h.Addr(), got[h])
		}
	}
}

func TestConcurrentPicks(t *testing.T) {
	t.Parallel()
	b := lb.New(&lb.Config{Policy: lb.LeastRequest, Choices: 2, ActiveBias: 1}, lb.Env{Random: rand.Uint64})
	sets := []*host.Set{set(host.Spec{Hosts: up(0, 1, 2, 3)}), set(host.Spec{Hosts: up(0, 1, 1)})}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 2000 {
				if h, _ := b.Pick(sets[(i+j)%2], &lb.Context{}); h == nil {
					t.Error("no host")
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAllocsPick(t *testing.T) {
	for name, s := range map[string]*host.Set{
		"equal weights": set(host.Spec{Hosts: up(0, 1, 1)}), "weighted": set(host.Spec{Hosts: up(0, 1, 2)}),
	} {
		b := lb.New(&lb.Config{Policy: lb.LeastRequest, Choices: 2, ActiveBias: 1}, lb.Env{Random: rand.Uint64})
		c := &lb.Context{}
		if n := testing.AllocsPerRun(100, func() { b.Pick(s, c) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	balancer := lb.New(&lb.Config{Policy: lb.LeastRequest, Choices: 2, ActiveBias: 1}, lb.Env{Random: rand.Uint64})
	s := set(host.Spec{Hosts: up(0, 1, 1, 1, 1)})
	c := &lb.Context{}
	for b.Loop() {
		balancer.Pick(s, c)
	}
}
