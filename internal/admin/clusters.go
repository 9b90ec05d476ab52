package admin

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/stream"
)

func (s *Server) serveClusters(r *request) answer {
	var filter *regexp.Regexp
	if expr, _ := r.query.get("filter"); expr != "" {
		re, err := regexp.Compile(expr)
		if err != nil {
			return text(http.StatusBadRequest, "Invalid re2 regex")
		}
		filter = re
	}
	var clusters []ClusterStatus
	for _, c := range s.options.Clusters() {
		if filter == nil || filter.MatchString(c.Name) {
			clusters = append(clusters, c)
		}
	}
	if format, _ := r.query.get("format"); format == "json" {
		out := &adminv3.Clusters{}
		for i := range clusters {
			out.ClusterStatuses = append(out.ClusterStatuses, clusterMessage(&clusters[i]))
		}
		return messageAnswer(out, false)
	}
	var b strings.Builder
	for i := range clusters {
		writeCluster(&b, &clusters[i])
	}
	return text(http.StatusOK, b.String())
}

func writeCluster(b *strings.Builder, c *ClusterStatus) {
	fmt.Fprintf(b, "%s::observability_name::%s\n", c.Name, c.ObservabilityName)
	if o := c.Outlier; o != nil {
		fmt.Fprintf(b, "%s::outlier::success_rate_average::%s\n", c.Name, rate(o.SuccessRateAverage))
		fmt.Fprintf(b, "%s::outlier::success_rate_ejection_threshold::%s\n", c.Name, rate(o.SuccessRateThreshold))
		fmt.Fprintf(b, "%s::outlier::local_origin_success_rate_average::%s\n", c.Name, rate(o.LocalOriginAverage))
		fmt.Fprintf(b, "%s::outlier::local_origin_success_rate_ejection_threshold::%s\n", c.Name,
			rate(o.LocalOriginThreshold))
	}
	for _, p := range []struct {
		name string
		t    Threshold
	}{{"default", c.Default}, {"high", c.High}} {
		fmt.Fprintf(b, "%s::%s_priority::max_connections::%d\n", c.Name, p.name, p.t.MaxConnections)
		fmt.Fprintf(b, "%s::%s_priority::max_pending_requests::%d\n", c.Name, p.name, p.t.MaxPendingRequests)
		fmt.Fprintf(b, "%s::%s_priority::max_requests::%d\n", c.Name, p.name, p.t.MaxRequests)
		fmt.Fprintf(b, "%s::%s_priority::max_retries::%d\n", c.Name, p.name, p.t.MaxRetries)
	}
	fmt.Fprintf(b, "%s::added_via_api::%t\n", c.Name, c.AddedViaAPI)
	if c.EDSServiceName != "" {
		fmt.Fprintf(b, "%s::eds_service_name::%s\n", c.Name, c.EDSServiceName)
	}
	for i := range c.Hosts {
		h := &c.Hosts[i]
		line := func(key, value string) { fmt.Fprintf(b, "%s::%s::%s::%s\n", c.Name, h.Address, key, value) }
		for _, v := range h.values() {
			line(v.name, strconv.FormatUint(v.value, 10))
		}
		line("hostname", h.Hostname)
		line("health_flags", h.Health.flags())
		line("weight", strconv.FormatUint(uint64(h.Weight), 10))
		line("region", h.Region)
		line("zone", h.Zone)
		line("sub_zone", h.SubZone)
		line("canary", strconv.FormatBool(h.Canary))
		line("priority", strconv.FormatUint(uint64(h.Priority), 10))
		line("success_rate", rate(h.SuccessRate))
		line("local_origin_success_rate", rate(h.LocalOriginSuccessRate))
	}
}

func rate(v float64) string { return strconv.FormatFloat(max(v, -1), 'g', -1, 64) }

type hostValue struct {
	name  string
	value uint64
	gauge bool
}

// values are the host's stats, sorted by name.
func (h *HostStatus) values() []hostValue {
	return []hostValue{
		{"cx_active", h.CxActive, true},
		{"cx_connect_fail", h.CxConnectFail, false},
		{"cx_total", h.CxTotal, false},
		{"rq_active", h.RqActive, true},
		{"rq_error", h.RqError, false},
		{"rq_pending_active", h.RqPendingActive, true},
		{"rq_success", h.RqSuccess, false},
		{"rq_timeout", h.RqTimeout, false},
		{"rq_total", h.RqTotal, false},
	}
}

// flags prints what is against the host: "/failed_active_hc/failed_eds_health", or "healthy".
func (h *Health) flags() string {
	var b strings.Builder
	for _, f := range []struct {
		set  bool
		name string
	}{
		{h.FailedActive, "failed_active_hc"},
		{h.FailedOutlier, "failed_outlier_check"},
		{h.FailedEDS, "failed_eds_health"},
		{h.DegradedActive, "degraded_active_hc"},
		{h.DegradedEDS, "degraded_eds_health"},
		{h.PendingDynamicRemoval, "pending_dynamic_removal"},
		{h.PendingActive, "pending_active_hc"},
		{h.ExcludedViaImmediateFail, "excluded_via_immediate_hc_fail"},
		{h.ActiveTimeout, "active_hc_timeout"},
		{h.Draining, "eds_status_draining"},
		{h.DegradedOutlier, "degraded_outlier_detection"},
	} {
		if f.set {
			b.WriteString("/" + f.name)
		}
	}
	if b.Len() == 0 {
		return "healthy"
	}
	return b.String()
}

func clusterMessage(c *ClusterStatus) *adminv3.ClusterStatus {
	out := &adminv3.ClusterStatus{
		Name: c.Name, AddedViaApi: c.AddedViaAPI, ObservabilityName: c.ObservabilityName,
		EdsServiceName: c.EDSServiceName,
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{
			threshold(corev3.RoutingPriority_DEFAULT, c.Default), threshold(corev3.RoutingPriority_HIGH, c.High),
		}},
	}
	if o := c.Outlier; o != nil {
		out.SuccessRateEjectionThreshold = percent(o.SuccessRateThreshold)
		out.LocalOriginSuccessRateEjectionThreshold = percent(o.LocalOriginThreshold)
	}
	for i := range c.Hosts {
		out.HostStatuses = append(out.HostStatuses, hostMessage(&c.Hosts[i]))
	}
	return out
}

func threshold(p corev3.RoutingPriority, t Threshold) *clusterv3.CircuitBreakers_Thresholds {
	return &clusterv3.CircuitBreakers_Thresholds{
		Priority:           p,
		MaxConnections:     wrapperspb.UInt32(t.MaxConnections),
		MaxPendingRequests: wrapperspb.UInt32(t.MaxPendingRequests),
		MaxRequests:        wrapperspb.UInt32(t.MaxRequests),
		MaxRetries:         wrapperspb.UInt32(t.MaxRetries),
	}
}

func hostMessage(h *HostStatus) *adminv3.HostStatus {
	out := &adminv3.HostStatus{
		Address: addressMessage(h.Address), Weight: h.Weight, Priority: h.Priority, Hostname: h.Hostname,
		HealthStatus: &adminv3.HostHealthStatus{
			FailedActiveHealthCheck:    h.Health.FailedActive,
			FailedOutlierCheck:         h.Health.FailedOutlier,
			FailedActiveDegradedCheck:  h.Health.DegradedActive,
			PendingDynamicRemoval:      h.Health.PendingDynamicRemoval,
			PendingActiveHc:            h.Health.PendingActive,
			ExcludedViaImmediateHcFail: h.Health.ExcludedViaImmediateFail,
			ActiveHcTimeout:            h.Health.ActiveTimeout,

			FailedDegradedOutlierDetection: h.Health.DegradedOutlier,

			EdsHealthStatus: edsHealth(&h.Health),
		},
	}
	// Envoy lists counters before gauges here.
	for _, gauges := range []bool{false, true} {
		for _, v := range h.values() {
			if v.gauge == gauges {
				m := &adminv3.SimpleMetric{Name: v.name, Value: v.value}
				if gauges {
					m.Type = adminv3.SimpleMetric_GAUGE
				}
				out.Stats = append(out.Stats, m)
			}
		}
	}
	if h.Region != "" || h.Zone != "" || h.SubZone != "" {
		out.Locality = &corev3.Locality{Region: h.Region, Zone: h.Zone, SubZone: h.SubZone}
	}
	out.SuccessRate = percent(h.SuccessRate)
	out.LocalOriginSuccessRate = percent(h.LocalOriginSuccessRate)
	return out
}

// percent is a percentage as a message, nil where it is not known.
func percent(v float64) *typev3.Percent {
	if v < 0 {
		return nil
	}
	return &typev3.Percent{Value: v}
}

func edsHealth(h *Health) corev3.HealthStatus {
	switch {
	case h.FailedEDS:
		return corev3.HealthStatus_UNHEALTHY
	case h.Draining:
		return corev3.HealthStatus_DRAINING
	case h.DegradedEDS:
		return corev3.HealthStatus_DEGRADED
	}
	return corev3.HealthStatus_HEALTHY
}

func addressMessage(a stream.Addr) *corev3.Address {
	if a.Pipe != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a.Pipe}}}
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.IP.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.IP.Port())},
	}}}
}

func (s *Server) serveListeners(r *request) answer {
	listeners := s.options.Listeners()
	if format, _ := r.query.get("format"); format == "json" {
		out := &adminv3.Listeners{}
		for _, l := range listeners {
			m := &adminv3.ListenerStatus{Name: l.Name, LocalAddress: addressMessage(l.Local)}
			for _, a := range l.Additional {
				m.AdditionalLocalAddresses = append(m.AdditionalLocalAddresses, addressMessage(a))
			}
			out.ListenerStatuses = append(out.ListenerStatuses, m)
		}
		return messageAnswer(out, false)
	}
	var b strings.Builder
	for _, l := range listeners {
		fmt.Fprintf(&b, "%s::%s\n", l.Name, l.Local)
		for _, a := range l.Additional {
			fmt.Fprintf(&b, "%s::%s\n", l.Name, a)
		}
	}
	return text(http.StatusOK, b.String())
}
