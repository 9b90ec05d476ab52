package server

import (
	"context"
	"os"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"

	"sidecar/cluster"
	"sidecar/cluster/host"
	"sidecar/cluster/load"
	"sidecar/internal/admin"
	"sidecar/internal/config"
	"sidecar/internal/stattag"
	"sidecar/listener"
	"sidecar/listener/accesslog"
)

// startAdmin starts the admin server, if the bootstrap has one.
func (s *Server) startAdmin() error {
	a := s.boot.Admin
	if a == nil {
		return nil
	}
	var errs config.Errors
	p := config.Field("admin")
	logs := accesslog.Compile(p.Field("access_log"), a.AccessLog, s.logOptions(), &errs)
	if a.AccessLogPath != "" {
		logs = append(logs, accesslog.CompilePath(p.Field("access_log_path"), a.AccessLogPath, s.logOptions(), &errs))
	}
	if err := errs.Err(); err != nil {
		return err
	}
	address := ""
	if a.Address.IsValid() {
		address = a.Address.String()
	}
	l, err := admin.Listen(context.Background(), address, a.Pipe, os.FileMode(a.PipeMode))
	if err != nil {
		return err
	}
	if path := s.opts.AdminAddressPath; path != "" {
		if err := admin.WriteAddress(path, l); err != nil {
			return err
		}
	}
	o := s.adminOptions()
	for _, l := range logs {
		o.AccessLogs = append(o.AccessLogs, l)
	}
	s.admin = admin.New(o)
	if !a.IgnoreGlobalConnLimit {
		l = s.limits.listener(l, s.listeners.Connections, s.scope.Sub("listener.admin"))
	}
	s.log.Info("admin address: " + l.Addr().String())
	s.admin.Start(l, func(err error) { s.log.Error("admin: " + err.Error()) })
	return nil
}

func (s *Server) stopAdmin(ctx context.Context) {
	if s.admin == nil {
		return
	}
	if err := s.admin.Close(ctx); err != nil {
		s.log.Debug("admin: " + err.Error())
	}
}

func (s *Server) adminOptions() admin.Options {
	var rules []stattag.Rule
	for _, t := range s.opts.StatsTags {
		rules = append(rules, stattag.Rule{Name: t[0], Fixed: t[1]})
	}
	for _, t := range s.boot.Stats.Tags {
		rules = append(rules, stattag.Rule{Name: t.Name, Regex: t.Regex, Fixed: t.Fixed})
	}
	return admin.Options{
		Log: s.opts.Logs.Component("admin"), Logs: s.opts.Logs, Stats: s.store,
		Tags: stattag.New(s.boot.Stats.UseAllDefaultTags, rules), Rejects: s.boot.Stats.Matcher.Rejects,
		State:      func() adminv3.ServerInfo_State { return adminv3.ServerInfo_State(s.State()) },
		ServerInfo: s.serverInfo, Dumps: s.dumps(), Clusters: s.clusterStatuses, Certs: s.certificates,
		Listeners: s.listenerStatuses, Runtime: runtimeView{s}, Unready: s.unready, Control: control{s},
		FlushOnRead: s.boot.Stats.FlushInterval <= 0, Pages: []admin.Page{s.wasmPage()},
	}
}

func (s *Server) unready() []*adminv3.UnreadyTargetsDumps_UnreadyTargetsDump {
	names := s.init.Unready()
	if len(names) == 0 {
		return nil
	}
	return []*adminv3.UnreadyTargetsDumps_UnreadyTargetsDump{{Name: s.init.Name(), TargetNames: names}}
}

func (s *Server) clusterStatuses() []admin.ClusterStatus {
	var out []admin.ClusterStatus
	for _, c := range s.clusters.Statuses() {
		st := admin.ClusterStatus{
			Name: c.Name, ObservabilityName: c.ObservabilityName, AddedViaAPI: c.AddedViaAPI,
			Default: threshold(c.Limits[load.Default]), High: threshold(c.Limits[load.High]),
		}
		if o := c.Outlier; o != nil {
			st.Outlier = &admin.OutlierStatus{
				SuccessRateAverage: o.External.Average, SuccessRateThreshold: o.External.Threshold,
				LocalOriginAverage: o.LocalOrigin.Average, LocalOriginThreshold: o.LocalOrigin.Threshold,
			}
		}
		for i := range c.Hosts {
			st.Hosts = append(st.Hosts, hostStatus(&c.Hosts[i]))
		}
		out = append(out, st)
	}
	return out
}

func threshold(l load.Limits) admin.Threshold {
	return admin.Threshold{
		MaxConnections: l.Connections, MaxPendingRequests: l.Pending,
		MaxRequests: l.Requests, MaxRetries: l.Retries,
	}
}

func hostStatus(h *cluster.HostStatus) admin.HostStatus {
	return admin.HostStatus{
		Address: h.Addr, Hostname: h.Hostname,
		CxActive: count(h.CxActive), RqActive: count(h.RqActive), RqPendingActive: count(h.RqPendingActive),
		CxConnectFail: count(h.CxConnectFail), CxTotal: count(h.CxTotal), RqError: count(h.RqError),
		RqSuccess: count(h.RqSuccess), RqTimeout: count(h.RqTimeout), RqTotal: count(h.RqTotal),
		Health: admin.Health{
			FailedEDS:                h.Health == host.Unhealthy || h.Health == host.Timeout,
			DegradedEDS:              h.Health == host.Degraded,
			Draining:                 h.Health == host.Draining,
			FailedActive:             h.Flags&host.FailedActiveHC != 0,
			FailedOutlier:            h.Flags&host.FailedOutlier != 0,
			DegradedActive:           h.Flags&host.DegradedActiveHC != 0,
			DegradedOutlier:          h.Flags&host.DegradedOutlier != 0,
			PendingDynamicRemoval:    h.Flags&host.PendingRemoval != 0,
			PendingActive:            h.Flags&host.PendingActiveHC != 0,
			ExcludedViaImmediateFail: h.Flags&host.ExcludedImmediateHC != 0,
			ActiveTimeout:            h.Flags&host.ActiveHCTimeout != 0,
		},
		Weight: h.Weight, Priority: h.Priority, Canary: h.Canary,
		Region: h.Locality.Region, Zone: h.Locality.Zone, SubZone: h.Locality.SubZone,
		SuccessRate: h.SuccessRate, LocalOriginSuccessRate: h.LocalOriginSuccessRate,
	}
}

func count(n int64) uint64 { return uint64(max(n, 0)) }

func (s *Server) listenerStatuses() []admin.ListenerStatus {
	var out []admin.ListenerStatus
	for _, l := range s.listeners.Snapshot() {
		if l.Warming {
			continue
		}
		st := admin.ListenerStatus{Name: l.Name}
		for i, a := range l.Local() {
			if i == 0 {
				st.Local = a
			} else {
				st.Additional = append(st.Additional, a)
			}
		}
		out = append(out, st)
	}
	return out
}

// control implements admin.Control.
type control struct{ s *Server }

// SetHealthy implements admin.Control.
func (c control) SetHealthy(healthy bool) { c.s.draining.FailHealthCheck(!healthy) }

// Quit implements admin.Control.
func (c control) Quit() { c.s.Quit() }

// ReopenLogs implements admin.Control.
func (c control) ReopenLogs() error {
	c.s.reopenLogs()
	return nil
}

// inbound is core.v3.TrafficDirection.INBOUND.
const inbound = 1

// DrainListeners implements admin.Control. At once: the listeners stop to accept. Graceful: for the
// drain time they go on to accept while connections are asked to end, then they stop, unless the exit
// is skipped. As in Envoy skip_exit alone is graceful too, and only the first drain counts.
func (c control) DrainListeners(o admin.DrainOptions) {
	s := c.s
	match := func(l *listener.Config) bool { return !o.InboundOnly || l.Direction == inbound }
	if !o.Graceful && !o.SkipExit {
		s.listeners.StopAccepting(match)
		return
	}
	if !s.drained.CompareAndSwap(false, true) {
		return
	}
	if o.InboundOnly {
		s.listeners.BeginDrain(match)
	} else {
		s.draining.Begin()
	}
	if o.SkipExit {
		return
	}
	s.goes("drain", func() {
		t := time.NewTimer(s.opts.DrainTime)
		defer t.Stop()
		select {
		case <-t.C:
			s.listeners.StopAccepting(match)
		case <-s.shutdown:
		}
	})
}

// runtimeView implements admin.Runtime.
type runtimeView struct{ s *Server }

// Layers implements admin.Runtime.
func (r runtimeView) Layers() []string {
	var out []string
	for _, l := range r.s.boot.Runtime {
		out = append(out, l.Name)
	}
	return out
}

// Entries implements admin.Runtime.
func (r runtimeView) Entries() []admin.RuntimeEntry {
	layers := r.s.boot.Runtime
	found := map[string]*admin.RuntimeEntry{}
	var order []string
	for i, l := range layers {
		for k, v := range l.Values {
			e := found[k]
			if e == nil {
				e = &admin.RuntimeEntry{Key: k, Values: make([]string, len(layers))}
				found[k] = e
				order = append(order, k)
			}
			e.Values[i], e.Final = v.Text, v.Text
		}
	}
	out := make([]admin.RuntimeEntry, 0, len(order))
	for _, k := range order {
		out = append(out, *found[k])
	}
	return out
}

// Modify implements admin.Runtime. Layers cannot be changed while the process runs.
func (r runtimeView) Modify(map[string]string) error { return admin.ErrNoAdminLayer }
