package admin

import (
	"io"
	"log/slog"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/log"
	"sidecar/internal/stattag"
)

// Options are what the server shows and does. All functions are called on goroutines of requests,
// at any time and several at once, and may block.
type Options struct {
	Log  *slog.Logger
	Logs *log.Logs // of the process, for /logging

	Stats *stats.Store
	Tags  *stattag.Rules
	// FlushOnRead ends an interval of the histograms before stats are shown (stats_flush_on_admin).
	FlushOnRead bool
	// Rejects tells which stats are left out (stats_matcher); nil: none.
	Rejects func(name string) bool

	// State is the state of the process, for /ready.
	State func() adminv3.ServerInfo_State
	// ServerInfo returns all of /server_info but the state. The caller owns the message.
	ServerInfo func() *adminv3.ServerInfo
	// Dumps are the parts of /config_dump, in the order they are shown.
	Dumps     []Dump
	Clusters  func() []ClusterStatus
	Listeners func() []ListenerStatus
	// Certs are the certificates in use; nil: none.
	Certs func() []*adminv3.Certificate
	// Runtime is the runtime; nil: one without layers.
	Runtime Runtime
	// Unready lists what start-up waits for, for /init_dump; nil: nothing.
	Unready func() []*adminv3.UnreadyTargetsDumps_UnreadyTargetsDump
	Control Control

	// Pages are endpoints that Envoy doesn't have, shown after its own.
	Pages []Page

	// AccessLogs get a record of each request.
	AccessLogs []AccessLog
}

// Page is an endpoint that shows something in two forms.
type Page struct {
	Path, Help string
	// Text writes the page for people. JSON is what it is for programs, encoded by encoding/json.
	Text func(w io.Writer) error
	JSON func() any
}

// Dump is one part of /config_dump.
type Dump struct {
	// EDS is shown only with include_eds.
	EDS bool
	// Get builds the message, such as a ClustersConfigDump, from serialized resources. The caller
	// owns it.
	Get func() proto.Message
}

// Control is what an operator can do to the process.
type Control interface {
	// SetHealthy answers /healthcheck/fail and /healthcheck/ok.
	SetHealthy(healthy bool)
	// DrainListeners begins a drain and doesn't wait for its end.
	DrainListeners(DrainOptions)
	// Quit begins an orderly exit and doesn't wait for it.
	Quit()
	// ReopenLogs opens log files anew.
	ReopenLogs() error
}

// DrainOptions are the parameters of /drain_listeners.
type DrainOptions struct {
	InboundOnly, Graceful, SkipExit bool
}

// Runtime is the runtime as /runtime shows and /runtime_modify changes it.
type Runtime interface {
	// Layers are the names of the layers, the lowest first.
	Layers() []string
	Entries() []RuntimeEntry
	// Modify sets values in the admin layer; an empty one removes. ErrNoAdminLayer if there is
	// none.
	Modify(values map[string]string) error
}

// RuntimeEntry is one key: its value in each layer, and the one in force.
type RuntimeEntry struct {
	Key    string
	Values []string
	Final  string
}

// Error is a refusal in words for the client.
type Error string

func (e Error) Error() string { return string(e) }

// ErrNoAdminLayer is what Runtime.Modify returns without an admin layer.
const ErrNoAdminLayer = Error("No admin layer specified")

// AccessLog writes a line about a request. It doesn't block.
type AccessLog interface {
	Log(*stream.Info)
}

// ListenerStatus is a listener as /listeners shows it.
type ListenerStatus struct {
	Name       string
	Local      stream.Addr
	Additional []stream.Addr
}

// Threshold are the circuit breakers of one priority.
type Threshold struct {
	MaxConnections, MaxPendingRequests, MaxRequests, MaxRetries uint32
}

// ClusterStatus is a cluster as /clusters shows it.
type ClusterStatus struct {
	Name, ObservabilityName string
	EDSServiceName          string
	AddedViaAPI             bool
	Default, High           Threshold
	// Outlier is nil for clusters without outlier detection.
	Outlier *OutlierStatus
	Hosts   []HostStatus
}

// OutlierStatus is what outlier detection has worked out for a cluster; -1 is not known.
type OutlierStatus struct {
	SuccessRateAverage, SuccessRateThreshold float64
	LocalOriginAverage, LocalOriginThreshold float64
}

// HostStatus is a host of a cluster.
type HostStatus struct {
	Address  stream.Addr
	Hostname string

	CxActive, RqActive, RqPendingActive    uint64
	CxConnectFail, CxTotal                 uint64
	RqError, RqSuccess, RqTimeout, RqTotal uint64

	Health                Health
	Weight, Priority      uint32
	Region, Zone, SubZone string
	Canary                bool
	// SuccessRate and LocalOriginSuccessRate are percentages, negative if not known.
	SuccessRate, LocalOriginSuccessRate float64
}

// Health is what is known against a host; the zero value is a healthy one.
type Health struct {
	FailedActive, FailedOutlier, FailedEDS bool
	DegradedActive, DegradedEDS            bool
	DegradedOutlier, Draining              bool
	PendingDynamicRemoval, PendingActive   bool
	ExcludedViaImmediateFail               bool
	ActiveTimeout                          bool
}

// The limits of the server: clients that are slow or ask too much are cut off.
const (
	maxHeaderBytes    = 60 << 10
	maxBodyBytes      = 1 << 20
	readHeaderTimeout = 30 * time.Second
	writeTimeout      = 5 * time.Minute
	idleTimeout       = time.Hour
)
