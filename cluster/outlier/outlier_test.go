package outlier_test

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/google/go-cmp/cmp"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/outlier"
	"sidecar/internal/config"
)

// rig is a detector and the hosts that it watches.
type rig struct {
	*outlier.Detector
	t       *testing.T
	store   *stats.Store
	hosts   []*host.Host
	runtime map[string]uint64

	mu      sync.Mutex
	changes int
	failed  []*host.Host
}

func newRig(t *testing.T, hosts int, yaml string) *rig {
	t.Helper()
	msg := &clusterv3.OutlierDetection{}
	if _, err := config.Parse("test", config.YAML, []byte(yaml), msg, config.RejectUnknown); err != nil {
		t.Fatal(err)
	}
	var errs config.Errors
	conf := outlier.Compile(nil, msg, &errs)
	if err := errs.Err(); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, store: stats.New(), runtime: map[string]uint64{}}
	for i := range hosts {
		r.hosts = append(r.hosts, host.New(stream.PipeAddr(strconv.Itoa(i)), "", nil, &host.Attributes{Weight: 1}))
	}
	random := rand.New(rand.NewPCG(1, 2))
	r.Detector = outlier.New(conf, outlier.Env{
		Stats:   stats.Bind[outlier.Stats](r.store.Root()),
		Random:  random.Uint64,
		Members: func() int { return len(r.hosts) },
		Runtime: func(key string) (uint64, bool) {
			v, ok := r.runtime[key]
			return v, ok
		},
		Changed: func(failed []*host.Host) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changes++
			r.failed = append(r.failed, failed...)
		},
	})
	return r
}

// put reports the same result several times, and waits for what follows.
func (r *rig) put(i, times int, result outlier.Result, code int) {
	for range times {
		r.Put(r.hosts[i], result, code)
		synctest.Wait()
	}
}

func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// ejected lists the hosts that are out.
func (r *rig) ejected() string {
	var out []string
	for i, h := range r.hosts {
		if h.Has(host.FailedOutlier) {
			out = append(out, strconv.Itoa(i))
		}
	}
	return strings.Join(out, " ")
}

func (r *rig) want(ejected string, counts map[string]int64) {
	r.t.Helper()
	if got := r.ejected(); got != ejected {
		r.t.Errorf("ejected %q, not %q", got, ejected)
	}
	got := map[string]int64{}
	r.store.Each(false, func(s *stats.Sample) {
		v := s.Gauge()
		if s.Kind == stats.KindCounter {
			v = int64(s.Counter())
		}
		if v != 0 {
			got[strings.TrimPrefix(string(s.Name), "ejections_")] = v
		}
	})
	if diff := cmp.Diff(counts, got); diff != "" {
		r.t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestConsecutive(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, yaml string
		run        func(r *rig)
		ejected    string
		stats      map[string]int64
	}{
		{
			"5xx", "max_ejection_percent: 100",
			func(r *rig) { r.put(0, 5, outlier.RequestFailed, 500) }, "0",
			map[string]int64{
				"active": 1, "total": 1, "consecutive_5xx": 1, "detected_consecutive_5xx": 1,
				"enforced_consecutive_5xx": 1, "enforced_total": 1,
			},
		},
		{
			"a success between", "max_ejection_percent: 100",
			func(r *rig) {
				r.put(0, 4, outlier.RequestFailed, 500)
				r.put(0, 1, outlier.RequestSuccess, 404)
				r.put(0, 4, outlier.RequestFailed, 500)
			}, "",
			map[string]int64{},
		},
		{
			"too many", "max_ejection_percent: 20",
			func(r *rig) { r.put(0, 5, outlier.RequestFailed, 500) }, "",
			map[string]int64{"overflow": 1, "consecutive_5xx": 1, "detected_consecutive_5xx": 1},
		},
		{
			"too many, but one", "{max_ejection_percent: 0, always_eject_one_host: true}",
			func(r *rig) {
				r.put(0, 5, outlier.RequestFailed, 500)
				r.put(1, 5, outlier.RequestFailed, 500)
			}, "0",
			map[string]int64{
				"active": 1, "total": 1, "consecutive_5xx": 2, "detected_consecutive_5xx": 2,
				"enforced_consecutive_5xx": 1, "enforced_total": 1, "overflow": 1,
			},
		},
		{
			"gateway failures", "{max_ejection_percent: 100, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100}",
			func(r *rig) {
				r.put(0, 1, outlier.RequestFailed, 503)
				r.put(0, 1, outlier.RequestFailed, 500)
				r.put(0, 1, outlier.RequestFailed, 504)
				r.put(1, 1, outlier.Timeout, 0)
				r.put(1, 1, outlier.ConnectFailed, 0)
			}, "1",
			map[string]int64{
				"active": 1, "detected_consecutive_gateway_failure": 1,
				"enforced_consecutive_gateway_failure": 1, "enforced_total": 1,
			},
		},
		{
			"detected, not enforced", "{max_ejection_percent: 100, enforcing_consecutive_5xx: 0}",
			func(r *rig) { r.put(0, 10, outlier.RequestFailed, 500) }, "",
			map[string]int64{"total": 2, "consecutive_5xx": 2, "detected_consecutive_5xx": 2},
		},
		{
			"switched off", "{max_ejection_percent: 100, consecutive_5xx: 0}",
			func(r *rig) { r.put(0, 10, outlier.RequestFailed, 500) }, "",
			map[string]int64{},
		},
		{
			"connections alone say nothing", "max_ejection_percent: 100",
			func(r *rig) {
				r.put(0, 4, outlier.RequestFailed, 500)
				r.put(0, 1, outlier.Connected, 0)
				r.put(0, 1, outlier.RequestFailed, 500)
				r.put(1, 4, outlier.ConnectFailed, 0)
				r.put(1, 1, outlier.ConnectedFinal, 0)
				r.put(1, 4, outlier.ConnectFailed, 0)
			}, "0",
			map[string]int64{
				"active": 1, "total": 1, "consecutive_5xx": 1, "detected_consecutive_5xx": 1,
				"enforced_consecutive_5xx": 1, "enforced_total": 1,
			},
		},
		{
			"local origin apart", "{max_ejection_percent: 100, split_external_local_origin_errors: true, consecutive_local_origin_failure: 3}",
			func(r *rig) {
				r.put(0, 2, outlier.ConnectFailed, 0)
				r.put(0, 1, outlier.Connected, 0)
				r.put(0, 2, outlier.Timeout, 504)
				r.put(1, 2, outlier.ConnectFailed, 503)
				r.put(1, 4, outlier.RequestFailed, 503)
				r.put(1, 1, outlier.ConnectFailed, 503)
			}, "1",
			map[string]int64{
				"active": 1, "detected_consecutive_local_origin_failure": 1,
				"enforced_consecutive_local_origin_failure": 1, "enforced_total": 1,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 3, tt.yaml)
				defer r.Stop()
				tt.run(r)
				r.want(tt.ejected, tt.stats)
			})
		})
	}
}

// TestEjectionTime: an ejection lasts longer each time, up to a limit, and the time gets shorter again
// as intervals pass without one.
func TestEjectionTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, "{max_ejection_percent: 100, base_ejection_time: 20s, max_ejection_time: 50s, interval: 10s}")
		defer r.Stop()
		out := func() (d time.Duration) {
			r.put(0, 5, outlier.RequestFailed, 500)
			if r.ejected() != "0" {
				t.Fatal("not ejected")
			}
			for start := time.Now(); ; {
				r.pass(time.Second)
				if r.ejected() == "" {
					return time.Since(start)
				}
			}
		}
		var got []time.Duration
		for range 4 {
			got = append(got, out())
		}
		r.pass(31 * time.Second) // three intervals in good health, of four that were counted
		got = append(got, out())
		want := []time.Duration{20 * time.Second, 40 * time.Second, 50 * time.Second, 50 * time.Second, 49 * time.Second}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if r.changes != 10 || len(r.failed) != 5 {
			t.Errorf("told of %d changes and %d failures", r.changes, len(r.failed))
		}
	})
}

func TestSuccessRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 6, "{max_ejection_percent: 100, consecutive_5xx: 0, success_rate_request_volume: 10, success_rate_stdev_factor: 1900}")
		defer r.Stop()
		for i := range r.hosts {
			r.put(i, 10, outlier.RequestSuccess, 200)
		}
		r.put(5, 10, outlier.RequestFailed, 500)
		r.put(5, 5, outlier.RequestFailed, 500)
		r.pass(10 * time.Second)
		r.want("5", map[string]int64{
			"active": 1, "total": 1, "success_rate": 1, "detected_success_rate": 1,
			"enforced_success_rate": 1, "enforced_total": 1,
		})
		external, local := r.Summaries()
		if external.Average != 90 || external.Threshold < 47 || external.Threshold > 48 || local.Average != -1 {
			t.Errorf("%+v %+v", external, local)
		}
		if rate, _ := outlier.Rates(r.hosts[5]); rate != 40 {
			t.Errorf("rate %v", rate)
		}
		r.pass(10 * time.Second)
		if rate, _ := outlier.Rates(r.hosts[5]); rate != -1 {
			t.Errorf("rate %v without requests", rate)
		}
	})
}

func TestFailurePercentage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 5, `{max_ejection_percent: 100, consecutive_5xx: 0, enforcing_success_rate: 0,
			enforcing_failure_percentage: 100, failure_percentage_request_volume: 4, failure_percentage_threshold: 50,
			enforcing_failure_percentage_local_origin: 100, split_external_local_origin_errors: true,
			consecutive_local_origin_failure: 0}`)
		defer r.Stop()
		for i := range r.hosts {
			r.put(i, 2, outlier.RequestSuccess, 200)
			r.put(i, 2-i/4, outlier.RequestFailed, 500)
			r.put(i, 1+i/4*4, outlier.ConnectFailed, 0)
			r.put(i, 1, outlier.Connected, 0)
		}
		r.put(4, 1, outlier.RequestSuccess, 200)
		r.pass(10 * time.Second)
		r.want("0 1 2 3", map[string]int64{
			"active": 4, "detected_failure_percentage": 4, "enforced_failure_percentage": 4, "enforced_total": 4,
		})
		// Only one host is left that could be judged by our own failures, and five are asked for.
		for i := range r.hosts {
			r.put(i, 8, outlier.ConnectFailed, 0)
		}
		r.pass(30 * time.Second)
		for i := range r.hosts {
			r.put(i, 8, outlier.ConnectFailed, 0)
		}
		r.pass(10 * time.Second)
		r.want("0 1 2 3 4", map[string]int64{
			"active": 5, "detected_failure_percentage": 4, "enforced_failure_percentage": 4,
			"detected_local_origin_failure_percentage": 5, "enforced_local_origin_failure_percentage": 5,
			"enforced_total": 9,
		})
	})
}

func TestRuntime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, "{}")
		defer r.Stop()
		r.runtime["outlier_detection.consecutive_5xx"] = 2
		r.runtime["outlier_detection.max_ejection_percent"] = 50
		r.runtime["outlier_detection.base_ejection_time_ms"] = 1
		r.put(1, 2, outlier.RequestFailed, 500)
		if r.ejected() != "1" {
			t.Error("the runtime's numbers are not used")
		}
		r.pass(10 * time.Second)
		if r.ejected() != "" {
			t.Error("the runtime's time is not used")
		}
	})
}

func TestSucceeded(t *testing.T) {
	t.Parallel()
	for yaml, back := range map[string]bool{
		"max_ejection_percent: 100": true,
		"{max_ejection_percent: 100, successful_active_health_check_uneject_host: false}": false,
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, 1, yaml)
			defer r.Stop()
			r.put(0, 5, outlier.RequestFailed, 500)
			r.Succeeded(r.hosts[0])
			if got := r.ejected() == ""; got != back {
				t.Errorf("%s: back is %t", yaml, got)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, "max_ejection_percent: 100")
		defer r.Stop()
		r.put(0, 5, outlier.RequestFailed, 500)
		r.hosts[0].Drain(true)
		r.Remove(r.hosts)
		r.put(0, 50, outlier.RequestFailed, 500)
		r.want("0", map[string]int64{
			"total": 1, "consecutive_5xx": 1, "detected_consecutive_5xx": 1, "enforced_consecutive_5xx": 1,
			"enforced_total": 1,
		})
	})
}

func TestDegraded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, "{detect_degraded_hosts: true, base_ejection_time: 15s}")
		defer r.Stop()
		for range 3 {
			r.Degraded(r.hosts[0])
			synctest.Wait()
		}
		if r.hosts[0].Condition() != host.Poor {
			t.Fatal("not degraded")
		}
		r.want("", map[string]int64{"detected_degradation": 1})
		r.pass(19 * time.Second)
		if r.hosts[0].Condition() != host.Poor {
			t.Error("not degraded any more, too early")
		}
		r.pass(time.Second)
		if r.hosts[0].Condition() != host.Up || r.changes != 2 {
			t.Errorf("condition %d, %d changes", r.hosts[0].Condition(), r.changes)
		}
	})
}

// TestQuiet: nothing ticks while nothing happens.
func TestQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, "max_ejection_percent: 100")
		r.put(0, 5, outlier.RequestFailed, 500)
		// The test ends only if no timer starts another one for ever: the bubble would never be idle.
		r.pass(time.Hour)
		r.want("", map[string]int64{
			"total": 1, "consecutive_5xx": 1, "detected_consecutive_5xx": 1, "enforced_consecutive_5xx": 1,
			"enforced_total": 1,
		})
	})
}

func TestCompile_Errors(t *testing.T) {
	t.Parallel()
	for yaml, want := range map[string]string{
		"{max_ejection_time: 5s, base_ejection_time: 10s}": "outlier_detection.max_ejection_time: cannot be smaller than base_ejection_time",
		"monitors: [{name: x}]":                            "outlier_detection.monitors: is not supported",
	} {
		msg := &clusterv3.OutlierDetection{}
		if _, err := config.Parse("test", config.YAML, []byte(yaml), msg, config.RejectUnknown); err != nil {
			t.Fatal(err)
		}
		var errs config.Errors
		outlier.Compile(config.Field("outlier_detection"), msg, &errs)
		if err := errs.Err(); err == nil || err.Error() != want {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}

func TestAllocs(t *testing.T) {
	r := newRig(t, 1, "split_external_local_origin_errors: true")
	defer r.Stop()
	r.Put(r.hosts[0], outlier.RequestSuccess, 200)
	if n := testing.AllocsPerRun(1000, func() {
		r.Put(r.hosts[0], outlier.Connected, 0)
		r.Put(r.hosts[0], outlier.RequestSuccess, 200)
		r.Put(r.hosts[0], outlier.RequestSuccess, 404)
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkPut(b *testing.B) {
	t := &testing.T{}
	r := newRig(t, 1, "{}")
	defer r.Stop()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Put(r.hosts[0], outlier.RequestSuccess, 200)
		}
	})
}
