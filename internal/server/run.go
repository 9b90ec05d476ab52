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
	s.xds.Start()
	failed := make(chan error, 1)
	task.Go("start", func() {
		if err := s.bringUp(ctx); err != nil && ctx.Err() == nil {
			failed <- err
		}
	}, func(p *task.Panic) { failed <- p })
	for {
		select {
		case err := <-failed:
			return err
		case <-s.shutdown:
			s.log.Warn("shutting down: admin quitquitquit")
			return nil
		case <-ctx.Done():
			return nil
		case sig := <-signals:
			if s.onSignal(sig) {
				return nil
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
	if err := s.startStaticListeners(); err != nil {
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
	if s.State() != DrainingState {
		s.setState(Live)
	}
	s.stats.Live.Set(1)
	s.stats.InitTime.Record(uint64(time.Since(s.started).Milliseconds()))
	if s.opts.Mode == InitOnly {
		close(s.shutdown)
	}
	return nil
}

// startStaticListeners binds the listeners of the bootstrap. A port that is taken, or a plugin that
// does not start, ends the process, as in Envoy.
func (s *Server) startStaticListeners() error {
	var errs config.Errors
	for i, l := range s.boot.Listeners {
		started := make(chan error, 1)
		t := s.init.Add("listener " + l.GetName())
		s.listeners.Apply(l, "", true, listener.Outcome{
			Started: func(err error) { started <- err }, Ready: t.Ready,
		})
		errs.Wrap(bootstrap.ListenerPath(i), <-started)
	}
	return errs.Err()
}

// State returns how far the process is.
func (s *Server) State() State {
	if s.draining.HealthCheckFailed() || s.draining.Active() {
		return DrainingState
	}
	return State(s.state.Load())
}

// Quit ends the process.
func (s *Server) Quit() { s.endOnce.Do(func() { close(s.shutdown) }) }

// close ends every part, in the order that lets each finish what it owes.
func (s *Server) close() {
	for _, sub := range s.subs {
		sub.Close()
	}
	s.listeners.Close()
	s.xds.Close()
	s.clusters.Close()
	s.wasm.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.sinks.Close(ctx)
	s.stopAdmin(ctx)
}
