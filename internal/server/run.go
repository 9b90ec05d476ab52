package server

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sidecar/internal/config"
	"sidecar/internal/task"
	"sidecar/listener"
	"sidecar/xds/bootstrap"
	"sidecar/xds/warm"
)

// run brings the process up in Envoy's order (admin, clusters, CDS, listeners and LDS, workers) and
// waits for its end.
func (s *Server) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := s.startAdmin(); err != nil {
		return err
	}
	s.setState(Initializing)
	s.warnRuntime()
	s.xds.Start()
	s.flushStats()
	s.releaseWhenQuiet()
	up := make(chan error, 1)
	task.Go("start", func() { up <- s.bringUp(ctx) }, func(p *task.Panic) { up <- p })
	done, err := s.wait(ctx, signals, up)
	stop()
	if !done {
		if late := <-up; late != nil {
			s.log.Debug("start was cut short: " + late.Error())
		}
	}
	return err
}

// wait returns at the first thing that ends the process. done tells that bringing up has ended.
func (s *Server) wait(ctx context.Context, signals <-chan os.Signal, up chan error) (done bool, err error) {
	for {
		select {
		case err := <-up:
			if err != nil {
				return true, err
			}
			up, done = nil, true
		case <-s.shutdown:
			return done, nil
		case <-ctx.Done():
			return done, nil
		case sig := <-signals:
			if s.onSignal(sig) {
				return done, nil
			}
		}
	}
}

// onSignal handles a signal; true ends the process.
func (s *Server) onSignal(sig os.Signal) bool {
	switch sig {
	case syscall.SIGUSR1:
		s.reopenLogs()
	case syscall.SIGHUP:
		s.log.Warn("caught and eating SIGHUP")
	case syscall.SIGTERM, syscall.SIGINT:
		// As in Envoy the process ends at once: whoever wants a drain asks the admin server first.
		s.log.Warn("caught ENVOY_" + map[os.Signal]string{syscall.SIGTERM: "SIGTERM", syscall.SIGINT: "SIGINT"}[sig])
		return true
	}
	return false
}

func (s *Server) reopenLogs() {
	if s.opts.LogFile != nil {
		if err := s.opts.LogFile.Reopen(); err != nil {
			s.log.Error("log file: " + err.Error())
		}
	}
	if err := s.sinks.Reopen(); err != nil {
		s.log.Error("access logs: " + err.Error())
	}
}

// bringUp waits for each stage before it begins the next.
func (s *Server) bringUp(ctx context.Context) error {
	if s.opts.Mode == InitOnly {
		// As in Envoy: what the bootstrap holds is started, and nothing is asked of a server.
		err := s.startStaticListeners(ctx)
		s.Quit()
		return err
	}
	cds := warm.New("clusters")
	ready := cds.Add("clusters")
	if src := s.boot.CDS; src != nil {
		first := cds.Add("cds")
		s.subs = append(s.subs, s.clusters.StartCDS(src, first.Ready))
	}
	s.clusters.WhenReady(ready.Ready)
	cds.Start()
	if err := cds.Wait(ctx); err != nil {
		return err
	}
	all := s.init.Add("clusters of cds")
	s.clusters.WhenReady(all.Ready)
	if err := s.startStaticListeners(ctx); err != nil {
		return err
	}
	if src := s.boot.LDS; src != nil {
		s.subscribeListeners(src, s.init.Add("lds"))
	}
	s.boot.Drop()
	s.init.Start()
	if err := s.init.Wait(ctx); err != nil {
		return err
	}
	s.log.Info("all dependencies initialized. starting workers")
	s.listeners.Start()
	s.setState(Live)
	s.stats.InitTime.Record(uint64(time.Since(s.started).Milliseconds()))
	s.configured()
	return nil
}

// startStaticListeners binds the listeners of the bootstrap. A port that is taken, or a plugin that
// does not start, ends the process, as in Envoy.
func (s *Server) startStaticListeners(ctx context.Context) error {
	if err := s.startPlaces(ctx); err != nil {
		return err
	}
	var errs config.Errors
	for i, l := range s.boot.Listeners {
		started := make(chan error, 1)
		t := s.init.Add("listener " + l.GetName())
		s.listeners.Apply(l, "", true, listener.Outcome{
			Started: func(err error) { started <- err }, Ready: t.Ready,
		})
		select {
		case err := <-started:
			errs.Wrap(bootstrap.ListenerPath(i), err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errs.Err()
}

// State returns how far the process is. As in Envoy a drain of the listeners alone doesn't show.
func (s *Server) State() State {
	if s.draining.HealthCheckFailed() {
		return DrainingState
	}
	return State(s.state.Load())
}

// Quit ends the process.
func (s *Server) Quit() { s.endOnce.Do(func() { close(s.shutdown) }) }

// close ends every part, in the order that lets each finish what it owes: no more configuration comes,
// connections end and are logged, then what they stood on goes.
func (s *Server) close() {
	s.Quit()
	s.wg.Wait()
	for _, sub := range s.subs {
		sub.Close()
	}
	s.xds.Close()
	s.listeners.Close()
	s.clusters.Close()
	s.secrets.close()
	s.places.retire()
	s.wasm.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.stopAdmin(ctx)
	s.sinks.Close(ctx)
}
