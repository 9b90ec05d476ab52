// Package source is the contract between those who receive dynamic configuration (listeners,
// clusters, routes, plugins) and the xDS client that fetches it.
//
// A consumer compiles a ConfigSource once, subscribes to resources of one type with a Watcher, and
// answers each resource that it is given by Delivery.Done: nil accepts it, an error rejects it and
// becomes part of the NACK. The consumer sees neither streams nor nonces; a resource that is equal
// in meaning to the one it accepted last is not given to it again.
//
// It lives apart from package xds because listener and cluster must not import their sibling.
package source

import (
	"errors"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
)

// Type URLs of the resources that have a discovery service of their own.
const (
	ClusterType   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType     = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SecretType    = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	ExtensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
)

// ErrFetchTimeout is what a watcher is told when initial_fetch_timeout has passed without an
// answer.
var ErrFetchTimeout = errors.New("initial_fetch_timeout passed without an answer")

// Subscriber opens subscriptions; the xDS client is the one in the process.
type Subscriber interface {
	// Subscribe starts a subscription. It may be called from any goroutine and doesn't block; the
	// Watcher is called later, never from inside Subscribe.
	Subscribe(Spec) Subscription
}

// Spec says what to subscribe to.
type Spec struct {
	// TypeURL of the resources.
	TypeURL string
	// Names of the resources; nil means all that the server has for this node (LDS and CDS).
	Names []string
	// Source to fetch from.
	Source *ConfigSource
	// Watcher receives the resources.
	Watcher Watcher
	// Stats are the subscription's own, bound by the consumer in its scope; nil counts nowhere.
	Stats *Stats
	// ControlPlane are the stream's, when the source is KindGRPC; Envoy has them in the same scope as
	// Stats below "control_plane". nil counts nowhere. (Those of the aggregated stream are the
	// client's own.)
	ControlPlane *ControlPlaneStats
}

// Subscription is an open one. Its methods may be called from any goroutine and don't block.
type Subscription interface {
	// SetNames replaces the names of a subscription by name.
	SetNames(names []string)
	// Close ends the subscription. The Watcher is not called any more once Close has returned to a
	// caller on the client's goroutine; elsewhere a call under way may still be finishing.
	Close()
}

// Watcher receives the resources of a subscription. All calls for all subscriptions of a client
// come from one goroutine, one at a time, so consumers that only work inside them need no lock.
// They must not block; they may subscribe and close subscriptions.
type Watcher interface {
	// Apply gives what changed. An Update may be empty: it is the first answer of the server, or
	// the subscription is to all resources and the server answered with no change.
	Apply(*Update)
	// Unavailable tells that the first fetch ended without an answer: initial_fetch_timeout has
	// passed, or the file can't be read. It comes at most once, and only before the first Apply;
	// whoever waits for the first answer should go on without. The subscription stays.
	Unavailable(error)
}

// Update is what one response of a server means to one subscription.
type Update struct {
	// Version is the server's version of the whole response; empty in some delta responses.
	Version string
	// Resources that are new, differ in meaning from what the watcher accepted last, or were
	// rejected before.
	Resources []*Delivery
	// Removed names resources that the server took away (or whose TTL ran out).
	Removed []string
}

// Resource is one version of a resource. It never changes and may be shared.
type Resource struct {
	Name    string
	Version string
	TypeURL string
	// Raw is the serialized message, for config_dump. It is shared with the client: don't write.
	Raw []byte
	// Digest is equal for resources that are equal in meaning.
	Digest Digest
}

// Digest identifies the meaning of a message: map order and the like make no difference.
type Digest [16]byte

// Delivery is a resource given to a watcher.
type Delivery struct {
	*Resource
	// Message is the decoded resource; nested Any messages are left as they are. It is shared by
	// the watchers of the resource: read only, and not to be kept after Done.
	Message proto.Message

	done atomic.Pointer[func(error)]
}

// NewDelivery makes a delivery whose answer goes to done, which must be callable from any
// goroutine.
func NewDelivery(r *Resource, m proto.Message, done func(error)) *Delivery {
	d := &Delivery{Resource: r, Message: m}
	d.done.Store(&done)
	return d
}

// Done answers the delivery: nil when the resource is accepted (compiled, and its local plugins
// warm), else why it is rejected, with the proto field path. It may be called from any goroutine,
// inside Apply or later; the answer to the server waits for it, at most 10 s. Only the first call
// counts.
func (d *Delivery) Done(err error) {
	if f := d.done.Swap(nil); f != nil {
		(*f)(err)
	}
}
