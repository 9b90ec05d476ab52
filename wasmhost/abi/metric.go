package abi

import (
	"sidecar/api/stats"
)

// maxMetrics bounds what one VM may define; Envoy has no bound.
const maxMetrics = 4096

// metrics are what one VM has defined, by type: an id counts up in steps of four from four, with the
// type in its two low bits. Defining a name again gives another id for the same stat.
type metrics struct {
	counters   []*stats.Counter
	gauges     []*stats.Gauge
	histograms []*stats.Histogram
}

func defineMetric(c call) (Status, error) {
	t := MetricType(c.a.U32(0))
	if t >= numMetrics {
		return BadArgument, nil
	}
	name, ok := c.bytes(1)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	if len(name) > maxName {
		c.vm.warnOnce("define_metric: the name is too long")
		return InternalFailure, nil
	}
	m, scope := &c.vm.metrics, c.vm.Host.Stats()
	if len(m.counters)+len(m.gauges)+len(m.histograms) >= maxMetrics {
		c.vm.warnOnce("define_metric: the plugin has defined 4096 metrics, which is the limit")
		return InternalFailure, nil
	}
	var n int
	switch t {
	case CounterMetric:
		m.counters = append(m.counters, scope.Counter(string(name)))
		n = len(m.counters)
	case GaugeMetric:
		m.gauges = append(m.gauges, scope.Gauge(string(name)))
		n = len(m.gauges)
	case HistogramMetric, numMetrics:
		m.histograms = append(m.histograms, scope.Histogram(string(name), stats.Unspecified))
		n = len(m.histograms)
	}
	return c.word(3, uint32(n)<<2|uint32(t))
}

// metric finds what an id stands for: all nil when it is unknown.
func (m *metrics) metric(id uint32) (*stats.Counter, *stats.Gauge, *stats.Histogram) {
	n := int(id>>2) - 1
	switch t := MetricType(id & 3); {
	case n < 0:
	case t == CounterMetric && n < len(m.counters):
		return m.counters[n], nil, nil
	case t == GaugeMetric && n < len(m.gauges):
		return nil, m.gauges[n], nil
	case t == HistogramMetric && n < len(m.histograms):
		return nil, nil, m.histograms[n]
	}
	return nil, nil, nil
}

func incrementMetric(c call) (Status, error) {
	delta := int64(c.a.U64(1))
	counter, gauge, histogram := c.vm.metrics.metric(c.a.U32(0))
	switch {
	case counter != nil:
		if delta <= 0 {
			return BadArgument, nil
		}
		counter.Add(uint64(delta))
	case gauge != nil:
		gauge.Add(delta)
	case histogram != nil:
		return BadArgument, nil
	default:
		return NotFound, nil
	}
	return OK, nil
}

// recordMetric on a counter adds.
func recordMetric(c call) (Status, error) {
	v := c.a.U64(1)
	counter, gauge, histogram := c.vm.metrics.metric(c.a.U32(0))
	switch {
	case counter != nil:
		counter.Add(v)
	case gauge != nil:
		gauge.Set(int64(v))
	case histogram != nil:
		histogram.Record(v)
	default:
		return NotFound, nil
	}
	return OK, nil
}

func getMetric(c call) (Status, error) {
	counter, gauge, histogram := c.vm.metrics.metric(c.a.U32(0))
	var v uint64
	switch {
	case counter != nil:
		v = counter.Value()
	case gauge != nil:
		v = uint64(gauge.Value())
	case histogram != nil:
		return BadArgument, nil
	default:
		return NotFound, nil
	}
	if !c.setLong(1, v) {
		return InvalidMemoryAccess, nil
	}
	return OK, nil
}
