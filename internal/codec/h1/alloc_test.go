//go:build !race

package h1

import "testing"

// A request of a keep-alive connection that goes through both ends makes no garbage: reading,
// header maps, encoding, flushing, handing connections over.
func TestProxyAllocs(t *testing.T) {
	exchange, stop := proxyClient(t)
	defer stop()
	for range 100 {
		exchange()
	}
	if n := testing.AllocsPerRun(500, exchange); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}
