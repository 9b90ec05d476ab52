package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
)

func (s *Server) serveReady(*request) answer {
	state := s.options.State()
	status := http.StatusServiceUnavailable
	if state == adminv3.ServerInfo_LIVE {
		status = http.StatusOK
	}
	return text(status, state.String()+"\n")
}

func (s *Server) serveServerInfo(*request) answer {
	info := s.options.ServerInfo()
	info.State = s.options.State()
	return messageAnswer(info, true)
}

func (s *Server) serveHealth(healthy bool) func(*request) answer {
	return func(*request) answer {
		s.options.Control.SetHealthy(healthy)
		return ok()
	}
}

func (s *Server) serveDrain(r *request) answer {
	s.options.Control.DrainListeners(DrainOptions{
		InboundOnly: r.query.has("inboundonly"), Graceful: r.query.has("graceful"),
		SkipExit: r.query.has("skip_exit"),
	})
	return ok()
}

func (s *Server) serveQuit(*request) answer {
	s.options.Control.Quit()
	return ok()
}

func (s *Server) serveReopenLogs(*request) answer {
	if err := s.options.Control.ReopenLogs(); err != nil {
		return text(http.StatusInternalServerError, err.Error()+"\n")
	}
	return ok()
}

func (s *Server) serveCerts(*request) answer {
	out := &adminv3.Certificates{}
	if s.options.Certs != nil {
		out.Certificates = s.options.Certs()
	}
	return messageAnswer(out, true)
}

func (s *Server) serveInitDump(r *request) answer {
	out := &adminv3.UnreadyTargetsDumps{}
	if s.options.Unready != nil {
		only, _ := r.query.get("mask")
		for _, d := range s.options.Unready() {
			if only == "" || strings.HasPrefix(d.GetName(), only) {
				out.UnreadyTargetsDumps = append(out.UnreadyTargetsDumps, d)
			}
		}
	}
	return messageAnswer(out, false)
}

func (s *Server) serveRuntime(*request) answer {
	if s.options.Runtime == nil {
		return answer{status: http.StatusOK, contentType: typeJSON, body: []byte("{\n \"entries\": {},\n \"layers\": []\n}\n")}
	}
	entries := s.options.Runtime.Entries()
	slices.SortFunc(entries, func(a, b RuntimeEntry) int { return strings.Compare(a.Key, b.Key) })
	b := []byte("{\n \"entries\": {")
	for i, e := range entries {
		b = append(b, separator(i, "\n  ")...)
		b = append(appendJSONString(b, e.Key), ": {\n   \"final_value\": "...)
		b = append(appendJSONString(b, e.Final), ",\n   \"layer_values\": ["...)
		for j, v := range e.Values {
			b = appendJSONString(append(b, separator(j, "\n    ")...), v)
		}
		b = append(b, "\n   ]\n  }"...)
	}
	b = append(b, closing(len(entries), "}", "\n }")...)
	b = append(b, ",\n \"layers\": ["...)
	layers := s.options.Runtime.Layers()
	for i, l := range layers {
		b = appendJSONString(append(b, separator(i, "\n  ")...), l)
	}
	b = append(b, closing(len(layers), "]", "\n ]")...)
	return answer{status: http.StatusOK, contentType: typeJSON, body: append(b, "\n}\n"...)}
}

func separator(i int, indent string) string {
	if i == 0 {
		return indent
	}
	return "," + indent
}

func closing(n int, empty, full string) string {
	if n == 0 {
		return empty
	}
	return full
}

func (s *Server) serveRuntimeModify(r *request) answer {
	values := map[string]string{}
	for _, p := range r.query {
		values[p.name] = p.value
	}
	if len(values) == 0 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		if err := r.ParseForm(); err != nil {
			return text(http.StatusBadRequest, "invalid request body\n")
		}
		addForm(values, r.PostForm)
	}
	if len(values) == 0 {
		return text(http.StatusBadRequest, "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n"+
			"       or send the parameters as form values\n"+
			"use an empty value to remove a previously added override")
	}
	if s.options.Runtime == nil {
		return text(http.StatusServiceUnavailable, ErrNoAdminLayer.Error())
	}
	if err := s.options.Runtime.Modify(values); err != nil {
		if errors.Is(err, ErrNoAdminLayer) {
			return text(http.StatusServiceUnavailable, err.Error())
		}
		return text(http.StatusBadRequest, err.Error()+"\n")
	}
	return ok()
}

func addForm(values map[string]string, form url.Values) {
	for name, v := range form {
		if len(v) > 0 {
			values[name] = v[0]
		}
	}
}

// serveMemory shows the Go heap in Envoy's terms.
func serveMemory(*request) answer {
	const (
		objects  = "/memory/classes/heap/objects:bytes"
		unused   = "/memory/classes/heap/unused:bytes"
		free     = "/memory/classes/heap/free:bytes"
		released = "/memory/classes/heap/released:bytes"
		total    = "/memory/classes/total:bytes"
		stacks   = "/memory/classes/heap/stacks:bytes"
	)
	samples := []metrics.Sample{{Name: objects}, {Name: unused}, {Name: free}, {Name: released}, {Name: total}, {Name: stacks}}
	metrics.Read(samples)
	v := func(i int) uint64 {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return samples[i].Value.Uint64()
	}
	physical, err := residentBytes()
	if err != nil {
		physical = v(4) - v(3)
	}
	return messageAnswer(&adminv3.Memory{
		Allocated: v(0), HeapSize: v(0) + v(1) + v(2) + v(3) + v(5), PageheapUnmapped: v(3), PageheapFree: v(2),
		TotalThreadCache: v(1), TotalPhysicalBytes: physical,
	}, true)
}

// residentBytes is the memory of the process that is in RAM.
func residentBytes() (uint64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, fmt.Errorf("unexpected /proc/self/statm: %q", b)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err
}

func serveHotRestart(*request) answer { return text(http.StatusOK, "disabled") }

func serveContention(*request) answer {
	return text(http.StatusOK, "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.")
}

// serveCPUProfiler answers as an Envoy that can't start its profiler.
func serveCPUProfiler(r *request) answer {
	switch enable, _ := r.query.get("enable"); {
	case len(r.query) != 1 || enable != "y" && enable != "n":
		return text(http.StatusBadRequest, "?enable=<y|n>\n")
	case enable == "y":
		return text(http.StatusInternalServerError, "failure to start the profiler")
	}
	return ok()
}
