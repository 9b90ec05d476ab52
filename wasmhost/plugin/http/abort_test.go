package http_test

import (
	"sync"
	"testing"
)

// TestAborts ends streams wherever they happen to be, many of them waiting for the VM: it is handed on,
// and nothing keeps the plugin.
func TestAborts(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "body"), concurrency: 1})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 100 {
				var x *exchange
				started := make(chan struct{})
				go func() {
					x = p.begin([][2]string{{"x-body", "upper"}}, "hello", " ", "world")
					close(started)
				}()
				if (i+j)%3 == 0 {
					x2 := p.begin(nil, "x")
					x2.abort()
					x2.wait()
				}
				<-started
				if j%2 == 0 {
					x.abort()
				}
				x.wait()
			}
		})
	}
	wg.Wait()
	if x := p.begin(nil).wait(); x.status != "200" {
		t.Errorf("status %s after all", x.status)
	}
	p.factory.Load().Retire()
	p.host.Close()
	if n := p.host.VMs(); n != 0 {
		t.Errorf("%d VMs are left", n)
	}
}
