package http_test

import (
	"sync"
	"testing"
	"time"

	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
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

// TestLoopsAmongOthers has one stream in fifty loop in a pool of VMs: streams that waited for a VM which
// fails are served by another or refused, and none waits for ever.
func TestLoopsAmongOthers(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{
		file: needPlugin(t, "looping"), policy: wasmv3.FailurePolicy_FAIL_RELOAD,
		deadline: 30 * time.Millisecond, concurrency: 3,
	})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 40 {
				var h [][2]string
				if (i*40+j)%50 == 49 {
					h = [][2]string{{"x-loop", "1"}}
				}
				if s := p.begin(h, "body").wait().status; s != "503" && (s != "200" || h != nil) {
					t.Errorf("status %s, looping %v", s, h != nil)
				}
			}
		})
	}
	wg.Wait()
}
