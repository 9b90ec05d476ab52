// Package statsink runs plugins as stat sinks (envoy.stat_sinks.wasm): at each flush they are shown the
// counters and gauges in Envoy's binary form.
package statsink

import (
	"context"
	"encoding/binary"

	statsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/stat_sinks/wasm/v3"

	"sidecar/api/stats"
	"sidecar/internal/config"
	"sidecar/wasmhost"
)

var fields = config.Fields[*statsv3.Wasm]{Used: "config"}

// FieldTables are the accounts of the sink's message, for tests.
func FieldTables() []config.Table { return []config.Table{fields} }

// Sink is a compiled stat sink. Flush is called by one goroutine at a time.
type Sink struct {
	*wasmhost.Running
	store *stats.Store
	last  map[string]uint64 // counters at the last flush
}

// Compile compiles a sink; errors are reported at p.
func Compile(h *wasmhost.Host, store *stats.Store, p *config.Path, m *statsv3.Wasm, errs *config.Errors) *Sink {
	fields.Check(p, m, errs)
	cfg, err := wasmhost.Compile(m.GetConfig(), nil, h.Limits())
	if err != nil {
		errs.Wrap(p.Field("config"), err)
		return nil
	}
	return &Sink{Running: wasmhost.NewRunning(h, cfg, ""), store: store, last: map[string]uint64{}}
}

// Start starts the plugin and blocks until it is configured.
func (s *Sink) Start(ctx context.Context) error {
	err := s.Warm(ctx)
	if err == nil {
		s.Await(ctx)
	}
	return err
}

// The types of blocks.
const (
	counters = 1
	gauges   = 2
)

// Flush shows the plugin what the stats are now. Histograms are left out, as in Envoy.
func (s *Sink) Flush() {
	p := s.Acquire()
	if p == nil {
		return
	}
	defer p.Release()
	p.UpdateStats(s.block())
}

// section is one of the two blocks: its size, its type, a count, and for each stat its name's length, its
// name, padding to 8 bytes from the start of the whole, and its values.
type section struct {
	b     []byte
	count uint32
}

func (x *section) add(name []byte, offset int, values ...uint64) {
	x.count++
	x.b = binary.LittleEndian.AppendUint32(x.b, uint32(len(name)))
	x.b = append(x.b, name...)
	for (offset+len(x.b))%8 != 0 {
		x.b = append(x.b, 0)
	}
	for _, v := range values {
		x.b = binary.LittleEndian.AppendUint64(x.b, v)
	}
}

const headBytes = 12

func (x *section) append(b []byte, kind uint32) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(headBytes+len(x.b)))
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = binary.LittleEndian.AppendUint32(b, x.count)
	return append(b, x.b...)
}

type gauge struct {
	name  string
	value int64
}

func (s *Sink) block() []byte {
	var c, g section
	var list []gauge // After the counters, whose size their padding depends on.
	s.store.Each(true, func(x *stats.Sample) {
		switch x.Kind {
		case stats.KindCounter:
			v := x.Counter()
			c.add(x.Name, headBytes, v, v-s.last[string(x.Name)])
			s.last[string(x.Name)] = v
		case stats.KindGauge:
			list = append(list, gauge{string(x.Name), x.Gauge()})
		default:
		}
	})
	out := c.append(nil, counters)
	for _, x := range list {
		g.add([]byte(x.name), len(out)+headBytes, uint64(x.value))
	}
	return g.append(out, gauges)
}
