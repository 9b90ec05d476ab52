//go:build e2e

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/yaml"
)

// obj is an object of the API.
type obj = map[string]any

// kind is a kind of objects.
type kind struct {
	group, version, name, plural string
	custom                       bool // has a CustomResourceDefinition
}

// kinds are those that istiod asks for: "group/version Kind plural, ...".
func kinds() (out []kind) {
	for _, line := range []string{
		"/v1 Namespace namespaces, Node nodes, Pod pods, Service services, Secret secrets, ConfigMap configmaps, ServiceAccount serviceaccounts, Event events",
		"discovery.k8s.io/v1 EndpointSlice endpointslices",
		"apps/v1 Deployment deployments, DaemonSet daemonsets, StatefulSet statefulsets",
		"networking.k8s.io/v1 Ingress ingresses, IngressClass ingressclasses",
		"coordination.k8s.io/v1 Lease leases",
		"policy/v1 PodDisruptionBudget poddisruptionbudgets",
		"autoscaling/v2 HorizontalPodAutoscaler horizontalpodautoscalers",
		"admissionregistration.k8s.io/v1 MutatingWebhookConfiguration mutatingwebhookconfigurations, ValidatingWebhookConfiguration validatingwebhookconfigurations",
		"apiextensions.k8s.io/v1 CustomResourceDefinition customresourcedefinitions",
		"authentication.k8s.io/v1 TokenReview tokenreviews",
		"authorization.k8s.io/v1 SubjectAccessReview subjectaccessreviews",
		"certificates.k8s.io/v1 CertificateSigningRequest certificatesigningrequests, ClusterTrustBundle clustertrustbundles",
		"networking.istio.io/v1 VirtualService virtualservices, DestinationRule destinationrules, Gateway gateways, ServiceEntry serviceentries, Sidecar sidecars, WorkloadEntry workloadentries, WorkloadGroup workloadgroups, EnvoyFilter envoyfilters, ProxyConfig proxyconfigs",
		"security.istio.io/v1 AuthorizationPolicy authorizationpolicies, PeerAuthentication peerauthentications, RequestAuthentication requestauthentications",
		"telemetry.istio.io/v1 Telemetry telemetries",
		"extensions.istio.io/v1alpha1 WasmPlugin wasmplugins, TrafficExtension trafficextensions",
		"gateway.networking.k8s.io/v1 GatewayClass gatewayclasses, Gateway gateways, HTTPRoute httproutes, GRPCRoute grpcroutes, TCPRoute tcproutes, TLSRoute tlsroutes, ReferenceGrant referencegrants, BackendTLSPolicy backendtlspolicies, ListenerSet listenersets",
	} {
		gv, list, _ := strings.Cut(line, " ")
		group, version, _ := strings.Cut(gv, "/")
		for _, item := range strings.Split(list, ", ") {
			name, plural, _ := strings.Cut(item, " ")
			custom := strings.HasSuffix(group, ".istio.io") || group == "gateway.networking.k8s.io"
			out = append(out, kind{group, version, name, plural, custom})
		}
	}
	return out
}

func (k *kind) key() string { return k.group + "/" + k.plural }

func (k *kind) namespaced() bool {
	switch k.name {
	case "Namespace", "Node", "GatewayClass", "CustomResourceDefinition", "IngressClass", "ClusterTrustBundle",
		"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "TokenReview", "SubjectAccessReview",
		"CertificateSigningRequest":
		return false
	}
	return true
}

// kube is an API server in memory. It knows no schemas, and every token is as good as what it says.
type kube struct {
	kinds []kind

	mu       sync.Mutex // guards below
	version  int
	objects  map[string]map[string]obj // by kind, then by namespace/name
	watchers map[string]map[*watcher]struct{}
}

type watcher struct {
	namespace string
	events    chan obj
}

func newKube() *kube {
	k := &kube{kinds: kinds(), version: 100, objects: map[string]map[string]obj{}, watchers: map[string]map[*watcher]struct{}{}}
	for _, x := range k.kinds {
		if !x.custom {
			continue
		}
		k.put("apiextensions.k8s.io/customresourcedefinitions", obj{
			"metadata": obj{"name": x.plural + "." + x.group, "annotations": obj{
				"gateway.networking.k8s.io/bundle-version": "v1.6.0", "gateway.networking.k8s.io/channel": "experimental",
			}},
			"spec": obj{
				"group": x.group, "names": obj{"kind": x.name, "plural": x.plural}, "scope": "Namespaced",
				"versions": []obj{{"name": x.version, "served": true, "storage": true}},
			},
		})
	}
	for _, n := range []string{"default", "istio-system", "kube-system"} {
		k.put("/namespaces", obj{"metadata": obj{"name": n, "labels": obj{"kubernetes.io/metadata.name": n}}})
	}
	return k
}

// serve answers at addr until the process ends.
func (k *kube) serve(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(l, k) }()
	return nil
}

// apply puts the objects of a YAML text.
func (k *kube) apply(text string) error {
	for _, doc := range strings.Split("\n"+text, "\n---") {
		o, x, err := k.parse(doc)
		if err != nil {
			return err
		}
		if x != nil {
			k.put(x.key(), o)
		}
	}
	return nil
}

// remove takes them away.
func (k *kube) remove(text string) error {
	for _, doc := range strings.Split("\n"+text, "\n---") {
		o, x, err := k.parse(doc)
		if err != nil {
			return err
		}
		if x != nil {
			k.drop(x.key(), id(o))
		}
	}
	return nil
}

func (k *kube) parse(doc string) (obj, *kind, error) {
	var o obj
	if err := yaml.Unmarshal([]byte(doc), &o); err != nil || o == nil {
		return nil, nil, err
	}
	group, _, found := strings.Cut(text(o["apiVersion"]), "/")
	if !found {
		group = ""
	}
	for i := range k.kinds {
		if x := &k.kinds[i]; x.group == group && x.name == text(o["kind"]) {
			if x.namespaced() && text(meta(o)["namespace"]) == "" {
				meta(o)["namespace"] = "default"
			}
			return o, x, nil
		}
	}
	return nil, nil, fmt.Errorf("no kind %v %v", o["apiVersion"], o["kind"])
}

func meta(o obj) obj {
	m, ok := o["metadata"].(obj)
	if !ok {
		m = obj{}
		o["metadata"] = m
	}
	return m
}

func text(v any) string { s, _ := v.(string); return s }

func id(o obj) string { return text(meta(o)["namespace"]) + "/" + text(meta(o)["name"]) }

func clone(o obj) (out obj) {
	b, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

func (k *kube) get(key, id string) obj {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.objects[key][id]
}

func (k *kube) put(key string, o obj) obj {
	k.mu.Lock()
	defer k.mu.Unlock()
	o = clone(o)
	m := meta(o)
	k.version++
	m["resourceVersion"] = strconv.Itoa(k.version)
	if k.objects[key] == nil {
		k.objects[key] = map[string]obj{}
	}
	event := "ADDED"
	if old := k.objects[key][id(o)]; old != nil {
		event = "MODIFIED"
		m["uid"], m["creationTimestamp"] = meta(old)["uid"], meta(old)["creationTimestamp"]
	} else {
		m["uid"], m["creationTimestamp"] = fmt.Sprintf("00000000-0000-4000-8000-%012d", k.version), "2026-01-01T00:00:00Z"
	}
	k.objects[key][id(o)] = o
	k.tell(key, event, o)
	return o
}

func (k *kube) drop(key, id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := k.objects[key][id]
	if o == nil {
		return false
	}
	delete(k.objects[key], id)
	k.version++
	o = clone(o)
	meta(o)["resourceVersion"] = strconv.Itoa(k.version)
	k.tell(key, "DELETED", o)
	return true
}

func (k *kube) tell(key, event string, o obj) {
	for w := range k.watchers[key] {
		if w.namespace == "" || w.namespace == text(meta(o)["namespace"]) {
			w.events <- obj{"type": event, "object": clone(o)}
		}
	}
}

func answer(w http.ResponseWriter, code int, o any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}

func refuse(w http.ResponseWriter, code int, reason string) {
	answer(w, code, obj{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code})
}

// call is one request for objects.
type call struct {
	k               *kube
	w               http.ResponseWriter
	r               *http.Request
	kind            *kind
	version         string // as asked for
	namespace, name string
	sub             string
	partial         bool // only metadata
}

// ServeHTTP implements http.Handler.
func (k *kube) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	c := &call{k: k, w: w, r: r, partial: strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")}
	group := ""
	switch {
	case len(p) == 1:
		k.root(w, p[0])
		return
	case p[0] == "api":
		c.version, p = p[1], p[2:]
	case p[0] == "apis" && len(p) >= 3:
		group, c.version, p = p[1], p[2], p[3:]
	default:
		refuse(w, http.StatusNotFound, "NotFound")
		return
	}
	if len(p) == 0 {
		k.resources(w, group, c.version)
		return
	}
	if p[0] == "namespaces" && len(p) >= 3 {
		c.namespace, p = p[1], p[2:]
	}
	p = append(p, "", "")
	c.name, c.sub = p[1], p[2]
	for i := range k.kinds {
		if x := &k.kinds[i]; x.group == group && x.plural == p[0] {
			c.kind = x
			c.serve()
			return
		}
	}
	refuse(w, http.StatusNotFound, "NotFound")
}

func (k *kube) root(w http.ResponseWriter, path string) {
	switch path {
	case "version":
		answer(w, http.StatusOK, obj{"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"})
	case "api":
		answer(w, http.StatusOK, obj{"kind": "APIVersions", "versions": []string{"v1"}})
	case "apis":
		var groups []obj
		seen := map[string]bool{"": true}
		for _, x := range k.kinds {
			if !seen[x.group] {
				seen[x.group] = true
				v := obj{"groupVersion": x.group + "/" + x.version, "version": x.version}
				groups = append(groups, obj{"name": x.group, "versions": []obj{v}, "preferredVersion": v})
			}
		}
		answer(w, http.StatusOK, obj{"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
	default:
		_, _ = io.WriteString(w, "ok")
	}
}

func (k *kube) resources(w http.ResponseWriter, group, version string) {
	var list []obj
	for _, x := range k.kinds {
		if x.group == group {
			list = append(list, obj{
				"name": x.plural, "kind": x.name, "namespaced": x.namespaced(),
				"verbs": []string{"get", "list", "watch", "create", "update", "patch", "delete"},
			})
		}
	}
	answer(w, http.StatusOK, obj{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": strings.TrimPrefix(group+"/"+version, "/"), "resources": list})
}

func (c *call) serve() {
	switch c.r.Method {
	case http.MethodGet:
		if c.name == "" {
			c.list()
			return
		}
		if o := c.k.get(c.kind.key(), c.namespace+"/"+c.name); o != nil {
			answer(c.w, http.StatusOK, c.shape(o))
			return
		}
		refuse(c.w, http.StatusNotFound, "NotFound")
	case http.MethodDelete:
		if c.k.drop(c.kind.key(), c.namespace+"/"+c.name) {
			answer(c.w, http.StatusOK, obj{"kind": "Status", "apiVersion": "v1", "status": "Success"})
			return
		}
		refuse(c.w, http.StatusNotFound, "NotFound")
	default:
		c.write()
	}
}

// shape is an object as it was asked for.
func (c *call) shape(o obj) obj {
	o = clone(o)
	if c.partial {
		return obj{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": o["metadata"]}
	}
	o["apiVersion"], o["kind"] = strings.TrimPrefix(c.kind.group+"/"+c.version, "/"), c.kind.name
	return o
}

func (c *call) wanted(o obj) bool {
	q := c.r.URL.Query()
	labels, _ := meta(o)["labels"].(obj)
	return (c.namespace == "" || c.namespace == text(meta(o)["namespace"])) &&
		labelled(q.Get("labelSelector"), labels) && fielded(q.Get("fieldSelector"), o)
}

func labelled(selector string, labels obj) bool {
	for _, p := range strings.Split(selector, ",") {
		p = strings.TrimSpace(p)
		name, value, equal := strings.Cut(strings.ReplaceAll(p, "==", "="), "=")
		_, has := labels[p]
		switch {
		case p == "" || strings.Contains(p, " "): // sets are not known: everything is in them
		case strings.HasSuffix(name, "!"):
			if text(labels[strings.TrimSuffix(name, "!")]) == value {
				return false
			}
		case equal:
			if text(labels[name]) != value {
				return false
			}
		case p[0] == '!':
			if _, has = labels[p[1:]]; has {
				return false
			}
		case !has:
			return false
		}
	}
	return true
}

func fielded(selector string, o obj) bool {
	for _, p := range strings.Split(selector, ",") {
		if p == "" {
			continue
		}
		path, value, _ := strings.Cut(strings.ReplaceAll(p, "==", "="), "=")
		path, not := strings.CutSuffix(path, "!")
		var at any = o
		for _, f := range strings.Split(path, ".") {
			m, _ := at.(obj)
			at = m[f]
		}
		if (text(at) == value) == not {
			return false
		}
	}
	return true
}

func (c *call) list() {
	watch := c.r.URL.Query().Get("watch")
	w := &watcher{namespace: c.namespace, events: make(chan obj, 4096)}
	c.k.mu.Lock()
	items := []obj{}
	for _, o := range c.k.objects[c.kind.key()] {
		if c.wanted(o) {
			items = append(items, c.shape(o))
		}
	}
	version := strconv.Itoa(c.k.version)
	if watch != "" && watch != "false" {
		if c.k.watchers[c.kind.key()] == nil {
			c.k.watchers[c.kind.key()] = map[*watcher]struct{}{}
		}
		c.k.watchers[c.kind.key()][w] = struct{}{}
		defer func() {
			c.k.mu.Lock()
			defer c.k.mu.Unlock()
			delete(c.k.watchers[c.kind.key()], w)
		}()
	}
	c.k.mu.Unlock()
	sort.Slice(items, func(i, j int) bool { return id(items[i]) < id(items[j]) })
	if watch != "" && watch != "false" {
		c.watch(w, items, version)
		return
	}
	o := obj{"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList"}
	if !c.partial {
		o = obj{"apiVersion": strings.TrimPrefix(c.kind.group+"/"+c.version, "/"), "kind": c.kind.name + "List"}
	}
	o["metadata"], o["items"] = obj{"resourceVersion": version}, items
	answer(c.w, http.StatusOK, o)
}

func (c *call) watch(w *watcher, items []obj, version string) {
	q := c.r.URL.Query()
	c.w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(c.w)
	if q.Get("sendInitialEvents") == "true" {
		for _, o := range items {
			_ = enc.Encode(obj{"type": "ADDED", "object": o})
		}
		mark := obj{"resourceVersion": version, "annotations": obj{"k8s.io/initial-events-end": "true"}}
		_ = enc.Encode(obj{"type": "BOOKMARK", "object": c.shape(obj{"metadata": mark})})
	} else if from, err := strconv.Atoi(q.Get("resourceVersion")); err == nil {
		for _, o := range items {
			if v, _ := strconv.Atoi(text(meta(o)["resourceVersion"])); v > from {
				_ = enc.Encode(obj{"type": "MODIFIED", "object": o})
			}
		}
	}
	flush := http.NewResponseController(c.w)
	_ = flush.Flush()
	seconds, err := strconv.Atoi(q.Get("timeoutSeconds"))
	if err != nil {
		seconds = 3600
	}
	end := time.NewTimer(time.Duration(seconds) * time.Second)
	defer end.Stop()
	for {
		select {
		case e := <-w.events:
			o, _ := e["object"].(obj)
			if e["type"] != "DELETED" && !c.wanted(o) {
				continue
			}
			e["object"] = c.shape(o)
			if enc.Encode(e) != nil {
				return
			}
			_ = flush.Flush()
		case <-end.C:
			return
		case <-c.r.Context().Done():
			return
		}
	}
}

// write creates, replaces or patches an object.
func (c *call) write() {
	b, err := io.ReadAll(c.r.Body)
	if err != nil {
		return
	}
	old := c.k.get(c.kind.key(), c.namespace+"/"+c.name)
	if strings.Contains(c.r.Header.Get("Content-Type"), "json-patch+json") {
		c.patch(old, b)
		return
	}
	var o obj
	if err := yaml.Unmarshal(b, &o); err != nil || o == nil {
		log.Printf("%s %s: no object: %v", c.r.Method, c.r.URL.Path, err)
		refuse(c.w, http.StatusUnsupportedMediaType, "UnsupportedMediaType")
		return
	}
	switch c.kind.name {
	case "TokenReview":
		answer(c.w, http.StatusCreated, reviewed(o))
		return
	case "SubjectAccessReview":
		o["status"] = obj{"allowed": true}
		answer(c.w, http.StatusCreated, o)
		return
	}
	if c.name == "" {
		c.name = text(meta(o)["name"])
		old = c.k.get(c.kind.key(), c.namespace+"/"+c.name)
	}
	code := http.StatusOK
	if c.r.Method == http.MethodPost {
		if code = http.StatusCreated; old != nil {
			refuse(c.w, http.StatusConflict, "AlreadyExists")
			return
		}
	} else if old != nil && (c.r.Method == http.MethodPatch || c.sub == "status") {
		if c.sub == "status" {
			o = obj{"status": o["status"]}
		}
		n := clone(old)
		merge(n, o)
		o = n
	}
	meta(o)["name"] = c.name
	if c.namespace != "" {
		meta(o)["namespace"] = c.namespace
	}
	answer(c.w, code, c.shape(c.k.put(c.kind.key(), o)))
}

// reviewed believes a token.
func reviewed(o obj) obj {
	spec, _ := o["spec"].(obj)
	user, pod := "system:serviceaccount:default:default", ""
	if p := strings.Split(text(spec["token"]), "."); len(p) == 3 {
		var claims struct {
			Sub  string
			Kube struct{ Pod struct{ Name string } } `json:"kubernetes.io"`
		}
		if b, err := base64.RawURLEncoding.DecodeString(p[1]); err == nil && json.Unmarshal(b, &claims) == nil {
			user, pod = claims.Sub, claims.Kube.Pod.Name
		}
	}
	o["status"] = obj{"authenticated": true, "audiences": spec["audiences"], "user": obj{
		"username": user, "uid": "u1", "groups": []string{"system:serviceaccounts", "system:authenticated"},
		"extra": obj{"authentication.kubernetes.io/pod-name": []string{pod}},
	}}
	return o
}

func (c *call) patch(old obj, b []byte) {
	var ops []struct {
		Op, Path string
		Value    any
	}
	if old == nil || json.Unmarshal(b, &ops) != nil {
		refuse(c.w, http.StatusNotFound, "NotFound")
		return
	}
	o := clone(old)
	for _, op := range ops {
		at := o
		path := strings.Split(strings.TrimPrefix(op.Path, "/"), "/")
		for _, f := range path[:len(path)-1] {
			next, ok := at[f].(obj)
			if !ok {
				refuse(c.w, http.StatusUnprocessableEntity, "Invalid")
				return
			}
			at = next
		}
		switch last := path[len(path)-1]; op.Op {
		case "test":
		case "remove":
			delete(at, last)
		default:
			at[last] = op.Value
		}
	}
	answer(c.w, http.StatusOK, c.shape(c.k.put(c.kind.key(), o)))
}

func merge(dst, src obj) {
	for k, v := range src {
		from, isMap := v.(obj)
		to, wasMap := dst[k].(obj)
		switch {
		case v == nil:
			delete(dst, k)
		case isMap && wasMap:
			merge(to, from)
		default:
			dst[k] = v
		}
	}
}
