package xds

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/internal/config/source"
)

// FuzzDecodeFile: whatever is in the file, each item has a name or an error, and decodes or not
// without a panic.
func FuzzDecodeFile(f *testing.F) {
	const any = `{"@type":"type.googleapis.com/envoy.config.listener.v3.Listener","name":"a"}`
	seeds := map[string]string{
		"empty": "", "null": "null", "list": "[]", "scalar": "7", "empty object": "{}",
		"version": "version_info: '1'", "no resources": "resources: []",
		"resources null": "resources: null", "resources a map": "resources: {}",
		"one": `{"resources":[` + any + `]}`, "two equal": `{"resources":[` + any + "," + any + `]}`,
		"unknown type":   `{"resources":[{"@type":"t/x.Y","name":"n"}]}`,
		"no type":        `{"resources":[{"name":"n"}]}`,
		"resource null":  `{"resources":[null]}`,
		"unknown field":  `{"what":1,"resources":[]}`,
		"type_url":       `{"typeUrl":"type.googleapis.com/envoy.config.cluster.v3.Cluster"}`,
		"alias":          "a: &a [1]\nresources: *a",
		"duplicate key":  "version_info: a\nversion_info: b",
		"tab":            "resources:\n\t- a",
		"wrapped":        `{"resources":[{"@type":"type.googleapis.com/envoy.service.discovery.v3.Resource","name":"a","ttl":"1s"}]}`,
		"deep":           "resources: [[[[[[[[[[[[[[]]]]]]]]]]]]]]",
		"anchor of self": "a: &a {b: *a}",
		"binary":         "\x00\xff\xfe", "utf-16": "\xff\xfea\x00",
	}
	for _, s := range seeds {
		for _, name := range []string{"l.yaml", "l.pb", "l.pb_text"} {
			f.Add(name, []byte(s), true)
			f.Add(name, []byte(s), false)
		}
	}
	f.Fuzz(func(t *testing.T, name string, data []byte, strict bool) {
		k := kindOf(source.ListenerType)
		resp, _, err := k.decodeFile(name, data, strict)
		if err != nil {
			return
		}
		checkItems(t, &k, resp.items)
	})
}

func checkItems(t *testing.T, k *kind, items []item) {
	t.Helper()
	for i := range items {
		it := &items[i]
		if it.err == nil && it.name == "" {
			t.Fatal("an item with neither a name nor an error")
		}
		if it.err != nil || it.heartbeat {
			continue
		}
		r, m, _, err := k.decode(it)
		if err == nil && (r.Name != it.name || m == nil) {
			t.Fatalf("decoded %q as %q", it.name, r.Name)
		}
	}
}

// acceptor accepts or rejects by the first byte of the version.
type acceptor struct{ live map[string]source.Digest }

func (a *acceptor) Apply(u *source.Update) {
	for _, name := range u.Removed {
		delete(a.live, name)
	}
	for _, d := range u.Resources {
		if len(d.Version) > 0 && d.Version[0] == 'x' {
			d.Done(errRejected)
			continue
		}
		a.live[d.Name] = d.Digest
		d.Done(nil)
	}
}

func (*acceptor) Unavailable(error) {}

// silent is a port that sends nothing.
type silent struct{ replies int }

func (*silent) interest()        {}
func (*silent) tell()            {}
func (*silent) unused()          {}
func (p *silent) replied(*reply) { p.replies++ }

// FuzzDeltaResponse: after any sequence of responses each has been answered, and the client and its
// watcher agree on what is live.
func FuzzDeltaResponse(f *testing.F) {
	seed := func(m *discoveryv3.DeltaDiscoveryResponse) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	res := func(name, version string, m proto.Message) *discoveryv3.Resource {
		r := &discoveryv3.Resource{Name: name, Version: version}
		if m != nil {
			a, err := anypb.New(m)
			if err != nil {
				f.Fatal(err)
			}
			r.Resource = a
		}
		return r
	}
	one := seed(&discoveryv3.DeltaDiscoveryResponse{Resources: []*discoveryv3.Resource{
		res("a", "1", &listenerv3.Listener{Name: "a"}),
	}})
	bad := seed(&discoveryv3.DeltaDiscoveryResponse{Resources: []*discoveryv3.Resource{
		res("a", "x", &listenerv3.Listener{Name: "a", StatPrefix: "p"}),
		res("b", "1", &listenerv3.Listener{Name: "b"}),
	}})
	gone := seed(&discoveryv3.DeltaDiscoveryResponse{RemovedResources: []string{"a", "", "z"}})
	other := seed(&discoveryv3.DeltaDiscoveryResponse{Resources: []*discoveryv3.Resource{
		res("c", "1", &clusterv3.Cluster{Name: "c"}), res("", "", nil), res("h", "", nil),
	}})
	ttl := seed(&discoveryv3.DeltaDiscoveryResponse{Resources: []*discoveryv3.Resource{
		{Name: "a", Ttl: durationpb.New(1), Resource: &anypb.Any{TypeUrl: source.ListenerType}},
	}})
	f.Add(one, one)
	f.Add(one, bad)
	f.Add(bad, one)
	f.Add(one, gone)
	f.Add(gone, gone)
	f.Add(other, one)
	f.Add(ttl, gone)
	f.Add([]byte{}, []byte{0xff})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		c := New(Config{})
		p := &silent{}
		fd := newFeed(c, kindOf(source.ListenerType))
		fd.port = p
		w := &acceptor{live: map[string]source.Digest{}}
		s := &subscription{c: c, feed: fd, wildcard: true, spec: source.Spec{Watcher: w}}
		fd.all = append(fd.all, s)
		sent := 0
		for _, raw := range [][]byte{first, second, first} {
			var m discoveryv3.DeltaDiscoveryResponse
			if proto.Unmarshal(raw, &m) != nil {
				continue
			}
			sent++
			resp := &response{removed: m.GetRemovedResources()}
			for _, r := range m.GetResources() {
				resp.items = append(resp.items, fd.kind.openResource(r))
			}
			checkItems(t, &fd.kind, resp.items)
			fd.apply(resp)
			for g := c.take(); g != nil; g = c.take() {
				g()
			}
		}
		if p.replies != sent {
			t.Fatalf("%d responses, %d replies", sent, p.replies)
		}
		for name, e := range fd.entries {
			e.stopTTL()
			if e.cur != nil && w.live[name] != e.cur.Digest {
				t.Fatalf("%q: the watcher has another version", name)
			}
		}
		for name := range w.live {
			if e := fd.entries[name]; e == nil || e.cur == nil {
				t.Fatalf("%q is live in the watcher only", name)
			}
		}
	})
}
