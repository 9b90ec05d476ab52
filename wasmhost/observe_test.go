package wasmhost_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"sidecar/wasmhost"
)

// levelTrace is the level of lines about each host call.
const levelTrace = slog.LevelDebug - 4

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// TestTrace holds that the log shows each callback and each host call while its level is trace, and
// none while it isn't; and that both are counted all the time.
func TestTrace(t *testing.T) {
	t.Parallel()
	var level slog.LevelVar
	out := new(safeBuffer)
	for _, l := range []slog.Level{slog.LevelInfo, levelTrace} {
		level.Set(l)
		h, err := wasmhost.NewHost(wasmhost.Options{
			Log: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: &level})),
		})
		if err != nil {
			t.Fatal(err)
		}
		p, err := started(t, h, code(t, plugin))
		if err != nil {
			t.Fatal(err)
		}
		if s := h.Status(); len(s) != 1 || s[0].State != wasmhost.StateServing || len(s[0].Callbacks) == 0 ||
			s[0].Functions["log"] == 0 {
			t.Errorf("status %+v", s)
		}
		p.Close()
		h.Close()
		if s := h.Status(); len(s) != 0 {
			t.Errorf("%d plugins are left", len(s))
		}
	}
	text := out.b.String()
	for _, want := range []string{
		`-> proxy_on_context_create(context=1, parent=0)`,
		`proxy_log(level=info, message=\"create\") = OK`,
		`<- proxy_on_vm_start(context=1, vm_configuration_size=0) = true`,
		`proxy_get_buffer_bytes(buffer=plugin_configuration, start=0, max_size=1) = OK`,
		`<- proxy_on_delete(context=1)`,
	} {
		if n := strings.Count(text, want); n != 1 {
			t.Errorf("%q is there %d times", want, n)
		}
	}
}
