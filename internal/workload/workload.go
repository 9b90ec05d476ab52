// Package workload is what sidecars of an Istio mesh tell one another of their workloads: the peer
// metadata that metadata_exchange and peer_metadata carry and that istio.stats reports.
package workload

import (
	"encoding/base64"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/stream"
)

// The keys under which a peer is found in the filter state.
const (
	Downstream = "downstream_peer"
	Upstream   = "upstream_peer"
)

// Workload describes a workload. It is immutable.
type Workload struct {
	Instance, Cluster, Namespace, Name   string
	CanonicalName, CanonicalRevision     string
	App, Version, Type, Identity, Region string
	Labels                               map[string]string // those asked for besides
}

// The fields of a node's metadata, and the labels, that make up a workload.
const (
	fieldName      = "NAME"
	fieldNamespace = "NAMESPACE"
	fieldCluster   = "CLUSTER_ID"
	fieldWorkload  = "WORKLOAD_NAME"
	fieldOwner     = "OWNER"
	fieldLabels    = "LABELS"
	fieldIdentity  = "IDENTITY"

	labelCanonicalName     = "service.istio.io/canonical-name"
	labelCanonicalRevision = "service.istio.io/canonical-revision"
	labelAppName           = "app.kubernetes.io/name"
	labelAppVersion        = "app.kubernetes.io/version"
	labelApp               = "app"
	labelVersion           = "version"

	ownerPrefix = "kubernetes://apis/"
)

// FromNode reads a workload from a node's metadata, or from what a peer has told in the same form.
func FromNode(m *structpb.Struct, labels []string) *Workload {
	f := func(name string) string { return m.GetFields()[name].GetStringValue() }
	w := &Workload{
		Instance: f(fieldName), Namespace: f(fieldNamespace), Cluster: f(fieldCluster), Name: f(fieldWorkload),
		Identity: f(fieldIdentity), Type: ownerType(f(fieldOwner)),
	}
	all := m.GetFields()[fieldLabels].GetStructValue().GetFields()
	label := func(names ...string) string {
		for _, n := range names {
			if v := all[n].GetStringValue(); v != "" {
				return v
			}
		}
		return ""
	}
	w.CanonicalName = label(labelCanonicalName, labelAppName, labelApp)
	w.CanonicalRevision = label(labelCanonicalRevision, labelAppVersion, labelVersion)
	w.App, w.Version = label(labelAppName, labelApp), label(labelAppVersion, labelVersion)
	if v := all[labelApp].GetStringValue(); v != "" {
		w.App = v
	}
	if v := all[labelVersion].GetStringValue(); v != "" {
		w.Version = v
	}
	for _, n := range labels {
		if v := all[n].GetStringValue(); v != "" {
			if w.Labels == nil {
				w.Labels = map[string]string{}
			}
			w.Labels[n] = v
		}
	}
	return w
}

// FromEndpoint reads what istiod says of an endpoint's workload: name;namespace;canonical
// name;canonical revision;cluster.
func FromEndpoint(text string) *Workload {
	p := strings.Split(text, ";")
	if len(p) < 5 {
		return nil
	}
	return &Workload{Name: p[0], Namespace: p[1], CanonicalName: p[2], CanonicalRevision: p[3], Cluster: p[4]}
}

// ownerType takes the kind of workload from an owner such as
// kubernetes://apis/apps/v1/namespaces/ns/deployments/name.
func ownerType(owner string) string {
	rest, ok := strings.CutPrefix(owner, ownerPrefix)
	if !ok {
		return ""
	}
	p := strings.Split(rest, "/")
	if len(p) < 2 {
		return ""
	}
	switch p[len(p)-2] {
	case "deployments":
		return "deployment"
	case "cronjobs":
		return "cronjob"
	case "jobs":
		return "job"
	case "pods":
		return "pod"
	}
	return ""
}

func (w *Workload) owner() string {
	if w.Type == "" {
		return ""
	}
	prefix := ownerPrefix + "apps/v1"
	switch w.Type {
	case "job", "cronjob":
		prefix = ownerPrefix + "batch/v1"
	case "pod":
		prefix = ownerPrefix + "core/v1"
	}
	return prefix + "/namespaces/" + w.Namespace + "/" + w.Type + "s/" + w.Name
}

// Struct is the form in which peers exchange it.
func (w *Workload) Struct() *structpb.Struct {
	out, labels := map[string]*structpb.Value{}, map[string]*structpb.Value{}
	set := func(m map[string]*structpb.Value, name, v string) {
		if v != "" {
			m[name] = structpb.NewStringValue(v)
		}
	}
	set(out, fieldName, w.Instance)
	set(out, fieldNamespace, w.Namespace)
	set(out, fieldCluster, w.Cluster)
	set(out, fieldWorkload, w.Name)
	set(out, fieldIdentity, w.Identity)
	set(out, fieldOwner, w.owner())
	set(labels, labelCanonicalName, w.CanonicalName)
	set(labels, labelCanonicalRevision, w.CanonicalRevision)
	set(labels, labelApp, w.App)
	set(labels, labelVersion, w.Version)
	for n, v := range w.Labels {
		set(labels, n, v)
	}
	if len(labels) > 0 {
		out[fieldLabels] = structpb.NewStructValue(&structpb.Struct{Fields: labels})
	}
	return &structpb.Struct{Fields: out}
}

// Header is the form in which the header x-envoy-peer-metadata carries it.
func (w *Workload) Header() string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(w.Struct())
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(b)
}

// maxHeader bounds what is read of a peer.
const maxHeader = 64 << 10

// FromHeader reads such a header; nil if it is not one.
func FromHeader(text string, labels []string) *Workload {
	if len(text) > maxHeader {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	var s structpb.Struct
	if proto.Unmarshal(b, &s) != nil {
		return nil
	}
	return FromNode(&s, labels)
}

// FilterStateField gives one field by the name that log formats and expressions have for it.
func (w *Workload) FilterStateField(name string) (string, bool) {
	var v string
	switch name {
	case "workload":
		v = w.Name
	case "namespace":
		v = w.Namespace
	case "cluster":
		v = w.Cluster
	case "service":
		v = w.CanonicalName
	case "revision":
		v = w.CanonicalRevision
	case "app":
		v = w.App
	case "version":
		v = w.Version
	case "type":
		v = w.Type
	case "name":
		v = w.Instance
	case "identity":
		v = w.Identity
	case "region":
		v = w.Region
	default:
		label, ok := strings.CutPrefix(name, "labels.")
		if !ok {
			return "", false
		}
		v = w.Labels[label]
	}
	return v, v != ""
}

// String is what FILTER_STATE(...:PLAIN) prints: baggage.
func (w *Workload) String() string {
	var b strings.Builder
	add := func(name, v string) {
		if v == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name + "=" + v)
	}
	add("type", w.Type)
	add("workload", w.Name)
	add("name", w.Instance)
	add("cluster", w.Cluster)
	add("namespace", w.Namespace)
	add("service", w.CanonicalName)
	add("revision", w.CanonicalRevision)
	add("app", w.App)
	add("version", w.Version)
	return b.String()
}

// Of returns the peer that is noted in a filter state; nil if there is none.
func Of(state map[string]stream.FilterObject, key string) *Workload {
	switch v := state[key].Value.(type) {
	case *Workload:
		return v
	case *Slot:
		return v.Load()
	}
	return nil
}

// Known tells whether it is settled who the peer is, if anybody asks it.
func Known(state map[string]stream.FilterObject, key string) bool {
	if s, ok := state[key].Value.(*Slot); ok {
		return s.Settled()
	}
	return true
}
