package bootstrap

import (
	"math"
	"time"

	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/internal/config"
)

// Overload is what the process does before it has no more memory or connections.
type Overload struct {
	// MaxDownstreamConnections bounds the downstream connections of all listeners; 0: no bound.
	MaxDownstreamConnections uint64
	// MaxHeapBytes is what the heap is measured against; 0: the bootstrap doesn't say.
	MaxHeapBytes    uint64
	RefreshInterval time.Duration
	// StopAccepting and RejectIncoming are the shares of MaxHeapBytes from which new connections
	// wait in the kernel, or are closed at once; 0: never.
	StopAccepting, RejectIncoming float64
}

// The names that Envoy knows monitors and actions by.
const (
	heapMonitor    = "envoy.resource_monitors.fixed_heap"
	stopAccepting  = "envoy.overload_actions.stop_accepting_connections"
	rejectIncoming = "envoy.overload_actions.reject_incoming_connections"
)

var overloadFields = config.Fields[*overloadv3.OverloadManager]{
	Used:    "refresh_interval resource_monitors actions",
	Refused: "buffer_factory_config loadshed_points",
}

var monitorFields = config.Fields[*overloadv3.ResourceMonitor]{Used: "name typed_config"}

var actionFields = config.Fields[*overloadv3.OverloadAction]{
	Used:    "name triggers",
	Refused: "typed_config",
}

var triggerFields = config.Fields[*overloadv3.Trigger]{
	Used:    "name threshold",
	Refused: "scaled",
}

var thresholdFields = config.Fields[*overloadv3.ThresholdTrigger]{Used: "value"}

var heapFields = config.Fields[*heapv3.FixedHeapConfig]{
	Used:    "max_heap_size_bytes",
	Refused: "max_heap_size_bytes_runtime",
}

var connectionsFields = config.Fields[*connectionsv3.DownstreamConnectionsConfig]{
	Used: "max_active_downstream_connections",
}

func overload(msg *overloadv3.OverloadManager, errs *config.Errors) Overload {
	path := config.Field("overload_manager")
	overloadFields.Check(path, msg, errs)
	out := Overload{RefreshInterval: config.Duration(path.Field("refresh_interval"), msg.GetRefreshInterval(), time.Second, errs)}
	seen := map[string]bool{}
	for i, monitor := range msg.GetResourceMonitors() {
		at := path.Field("resource_monitors").Index(i)
		monitorFields.Check(at, monitor, errs)
		if seen[monitor.GetName()] {
			errs.Addf(at.Field("name"), "Duplicate resource monitor %s", monitor.GetName())
		}
		seen[monitor.GetName()] = true
		out.monitor(at.Field("typed_config"), monitor.GetTypedConfig(), errs)
	}
	for i, action := range msg.GetActions() {
		out.action(path.Field("actions").Index(i), action, errs)
	}
	return out
}

func (o *Overload) monitor(at *config.Path, typed *anypb.Any, errs *config.Errors) {
	switch config.TypeName(typed) {
	case heapFields.Message().FullName():
		if heap, ok := config.OpenAs[*heapv3.FixedHeapConfig](at, typed, errs); ok {
			heapFields.Check(at, heap, errs)
			o.MaxHeapBytes = heap.GetMaxHeapSizeBytes()
		}
	case connectionsFields.Message().FullName():
		if limit, ok := config.OpenAs[*connectionsv3.DownstreamConnectionsConfig](at, typed, errs); ok {
			connectionsFields.Check(at, limit, errs)
			o.MaxDownstreamConnections = uint64(max(0, limit.GetMaxActiveDownstreamConnections()))
		}
	default:
		errs.Addf(at, "%w", config.UnknownType(typed))
	}
}

func (o *Overload) action(path *config.Path, action *overloadv3.OverloadAction, errs *config.Errors) {
	actionFields.Check(path, action, errs)
	threshold := 0.0
	for i, trigger := range action.GetTriggers() {
		at := path.Field("triggers").Index(i)
		triggerFields.Check(at, trigger, errs)
		thresholdFields.Check(at.Field("threshold"), trigger.GetThreshold(), errs)
		if trigger.GetName() != heapMonitor || o.MaxHeapBytes == 0 {
			errs.Addf(at.Field("name"), "must be %s, which has to be configured, not %s", heapMonitor, trigger.GetName())
			continue
		}
		value := trigger.GetThreshold().GetValue()
		if math.IsNaN(value) || value <= 0 || value > 1 {
			errs.Addf(at.Field("threshold.value"), "must be above 0 and at most 1, not %v", value)
			continue
		}
		if threshold == 0 || value < threshold {
			threshold = value
		}
	}
	switch action.GetName() {
	case stopAccepting:
		o.StopAccepting = threshold
	case rejectIncoming:
		o.RejectIncoming = threshold
	default:
		errs.Addf(path.Field("name"), "%s is not supported", action.GetName())
	}
}
