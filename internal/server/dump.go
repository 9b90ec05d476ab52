package server

import (
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidecar/internal/admin"
	"sidecar/internal/config/source"
)

// dumps are the parts of /config_dump in Envoy's order. Each is built from serialized resources when
// it is asked for.
func (s *Server) dumps() []admin.Dump {
	return []admin.Dump{
		{Get: s.dumpBootstrap},
		{Get: s.dumpClusters},
		{EDS: true, Get: s.dumpEndpoints},
		{Get: s.dumpListeners},
		{Get: func() proto.Message { return &adminv3.ScopedRoutesConfigDump{} }},
		{Get: s.dumpRoutes},
		{Get: s.dumpSecrets},
		{Get: s.dumpExtensions},
	}
}

func resource(typeURL string, raw []byte) *anypb.Any {
	return &anypb.Any{TypeUrl: typeURL, Value: raw}
}

func (s *Server) dumpBootstrap() proto.Message {
	b := new(bootstrapv3.Bootstrap)
	if err := proto.Unmarshal(s.boot.Bytes, b); err != nil {
		s.log.Error("config_dump: " + err.Error())
	}
	b.Node = s.node
	return &adminv3.BootstrapConfigDump{Bootstrap: b, LastUpdated: timestamppb.New(s.started)}
}

func (s *Server) dumpClusters() proto.Message {
	version, list := s.clusters.Dumps()
	out := &adminv3.ClustersConfigDump{VersionInfo: version}
	for _, c := range list {
		a, at := resource(source.ClusterType, c.Raw), timestamppb.New(c.LastUpdated)
		switch {
		case !c.AddedViaAPI:
			out.StaticClusters = append(out.StaticClusters,
				&adminv3.ClustersConfigDump_StaticCluster{Cluster: a, LastUpdated: at})
		case c.Warming:
			out.DynamicWarmingClusters = append(out.DynamicWarmingClusters,
				&adminv3.ClustersConfigDump_DynamicCluster{VersionInfo: c.VersionInfo, Cluster: a, LastUpdated: at})
		default:
			out.DynamicActiveClusters = append(out.DynamicActiveClusters,
				&adminv3.ClustersConfigDump_DynamicCluster{VersionInfo: c.VersionInfo, Cluster: a, LastUpdated: at})
		}
	}
	return out
}

func (s *Server) dumpListeners() proto.Message {
	out := &adminv3.ListenersConfigDump{}
	if v := s.ldsVersion.Load(); v != nil {
		out.VersionInfo = *v
	}
	for _, l := range s.listeners.Snapshot() {
		a, at := resource(source.ListenerType, l.Raw), timestamppb.New(l.Updated)
		if l.Static {
			out.StaticListeners = append(out.StaticListeners,
				&adminv3.ListenersConfigDump_StaticListener{Listener: a, LastUpdated: at})
			continue
		}
		d := &adminv3.ListenersConfigDump_DynamicListener{Name: l.Name}
		st := &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: l.Version, Listener: a, LastUpdated: at}
		if l.Warming {
			d.WarmingState = st
		} else {
			d.ActiveState = st
		}
		if l.Err != "" {
			d.ErrorState = &adminv3.UpdateFailureState{Details: l.Err}
		}
		out.DynamicListeners = append(out.DynamicListeners, d)
	}
	return out
}

func (s *Server) dumpRoutes() proto.Message {
	out := &adminv3.RoutesConfigDump{}
	for _, t := range s.routes.list() {
		t.mu.Lock()
		if t.raw != nil {
			out.DynamicRouteConfigs = append(out.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{
				VersionInfo: t.version, RouteConfig: resource(source.RouteType, t.raw),
				LastUpdated: timestamppb.New(t.updated),
			})
		}
		t.mu.Unlock()
	}
	return out
}

func (s *Server) dumpExtensions() proto.Message {
	out := &adminv3.EcdsConfigDump{}
	for _, e := range s.extensions.list() {
		if v := e.slot.Load(); v != nil {
			out.EcdsFilters = append(out.EcdsFilters, &adminv3.EcdsConfigDump_EcdsFilterConfig{
				VersionInfo: v.Resource.Version, EcdsFilter: resource(source.ExtensionType, v.Resource.Raw),
				LastUpdated: timestamppb.New(time.Unix(0, e.updated.Load())),
			})
		}
	}
	return out
}

// serverInfo is /server_info without the state.
func (s *Server) serverInfo() *adminv3.ServerInfo {
	o := s.opts
	up := durationpb.New(time.Since(s.started).Truncate(time.Second))
	mode := adminv3.CommandLineOptions_Serve
	switch o.Mode {
	case Validate:
		mode = adminv3.CommandLineOptions_Validate
	case InitOnly:
		mode = adminv3.CommandLineOptions_InitOnly
	case Serve:
	}
	strategy := adminv3.CommandLineOptions_Gradual
	if o.DrainStrategy == Immediate {
		strategy = adminv3.CommandLineOptions_Immediate
	}
	return &adminv3.ServerInfo{
		Version: strings.TrimSpace(o.Version), UptimeCurrentEpoch: up, UptimeAllEpochs: up,
		HotRestartVersion: "disabled", Node: s.node,
		CommandLineOptions: &adminv3.CommandLineOptions{
			BaseId: uint64(o.BaseID), Concurrency: uint32(o.Concurrency), ConfigPath: o.ConfigPath,
			ConfigYaml: o.ConfigYAML, AdminAddressPath: o.AdminAddressPath, LogLevel: o.LogLevel,
			ComponentLogLevel: o.ComponentLogLevel, LogFormat: o.LogFormat, LogPath: o.LogPath,
			ServiceCluster: o.ServiceCluster, ServiceNode: o.ServiceNode, ServiceZone: o.ServiceZone,
			FileFlushInterval: durationpb.New(o.FileFlushInterval), DrainTime: durationpb.New(o.DrainTime),
			ParentShutdownTime: durationpb.New(o.ParentShutdownTime), DrainStrategy: strategy, Mode: mode,
			DisableHotRestart: o.DisableHotRestart, EnableCoreDump: o.EnableCoreDump,
		},
	}
}
