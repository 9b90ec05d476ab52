package warm_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"sidecar/xds/warm"
)

func isReady(g *warm.Group) bool {
	select {
	case <-g.Done():
		return true
	default:
		return false
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	g := warm.New("clusters")
	a, b := g.Add("cds"), g.Add("a")
	a.Ready()
	g.Start()
	if isReady(g) {
		t.Fatal("ready with a target left")
	}
	c := g.Add("late")
	b.Ready()
	if isReady(g) || !slices.Equal(g.Unready(), []string{"late"}) {
		t.Fatalf("a target added while waiting was not waited for: %q", g.Unready())
	}
	c.Ready()
	c.Ready()
	if !isReady(g) || len(g.Unready()) != 0 {
		t.Fatal("not ready")
	}
	g.Add("after").Ready()
	if err := g.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestGroupNotStarted(t *testing.T) {
	t.Parallel()
	g := warm.New("g")
	g.Add("a").Ready()
	if isReady(g) {
		t.Fatal("ready before it was started")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	g.Start()
	if !isReady(g) {
		t.Fatal("not ready with nothing to wait for")
	}
}

func TestWaitWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := warm.New("g")
		a := g.Add("a")
		g.Start()
		woken := false
		go func() {
			if g.Wait(t.Context()) == nil {
				woken = true
			}
		}()
		synctest.Wait()
		if woken {
			t.Fatal("woken early")
		}
		a.Ready()
		synctest.Wait()
		if !woken {
			t.Fatal("not woken")
		}
	})
}
