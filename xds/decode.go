package xds

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/internal/config/source"
)

const wrapperType = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// response is what a server or a file says about one type, whatever the protocol.
type response struct {
	version string
	nonce   string
	gen     uint64 // of the stream
	items   []item
	removed []string
	// sotw is true when the resources of a full kind that are missing were removed.
	sotw bool
}

// item is one resource of a response, not decoded yet: most are known by their bytes.
type item struct {
	name    string // empty when it can't be read
	version string
	raw     []byte
	wire    source.Digest // of raw
	ttl     time.Duration // 0 for none
	// heartbeat renews the TTL of what is there.
	heartbeat bool
	err       error
}

func wireDigest(raw []byte) (d source.Digest) {
	sum := sha256.Sum256(raw)
	copy(d[:], sum[:])
	return d
}

// openAny reads one entry of a state-of-the-world response.
func (k *kind) openAny(a *anypb.Any, version string) item {
	if a.GetTypeUrl() != wrapperType {
		return k.open(a, "", version)
	}
	var r discoveryv3.Resource
	if err := proto.Unmarshal(a.GetValue(), &r); err != nil {
		return item{err: fmt.Errorf("envoy.service.discovery.v3.Resource: %w", err)}
	}
	if r.GetVersion() == "" {
		r.Version = version
	}
	return k.openResource(&r)
}

// openResource reads one entry of a delta response.
func (k *kind) openResource(r *discoveryv3.Resource) item {
	var ttl time.Duration
	if t := r.GetTtl(); t != nil {
		if ttl = t.AsDuration(); t.CheckValid() != nil || ttl <= 0 {
			return item{name: r.GetName(), version: r.GetVersion(), err: errors.New("ttl: invalid")}
		}
	}
	if r.GetResource() == nil && r.GetName() != "" {
		return item{name: r.GetName(), version: r.GetVersion(), ttl: ttl, heartbeat: true}
	}
	it := k.open(r.GetResource(), r.GetName(), r.GetVersion())
	it.ttl = ttl
	return it
}

func (k *kind) open(a *anypb.Any, name, version string) item {
	it := item{name: name, version: version, raw: a.GetValue()}
	if a.GetTypeUrl() != k.url {
		it.err = fmt.Errorf("type URL %s, want %s", a.GetTypeUrl(), k.url)
		return it
	}
	if own := k.nameOf(it.raw); own != "" {
		// Envoy goes by the resource's own name too.
		it.name = own
	}
	if it.name == "" {
		it.err = errors.New("name: value length must be at least 1")
		return it
	}
	it.wire = wireDigest(it.raw)
	return it
}

// nameOf reads the name of a serialized resource without decoding it: field 1 in every kind.
func (*kind) nameOf(raw []byte) string {
	name := ""
	for len(raw) > 0 {
		num, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return name
		}
		raw = raw[n:]
		if num == 1 && typ == protowire.BytesType {
			b, n := protowire.ConsumeBytes(raw)
			if n < 0 {
				return name
			}
			name, raw = string(b), raw[n:] // the last one counts
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, raw); n < 0 {
			return name
		}
		raw = raw[n:]
	}
	return name
}

// unmarshal decodes a resource with the types that are in the binary.
func (k *kind) unmarshal(raw []byte) (proto.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByURL(k.url)
	if err != nil {
		return nil, fmt.Errorf("type %s is not known", k.url)
	}
	m := t.New().Interface()
	if err := proto.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("%s: %w", t.Descriptor().FullName(), err)
	}
	return m, nil
}

// decode makes a resource of an item.
func (k *kind) decode(it *item) (r *source.Resource, m proto.Message, unknown string, err error) {
	m, err = k.unmarshal(it.raw)
	if err != nil {
		return nil, nil, "", err
	}
	r = &source.Resource{Name: it.name, Version: it.version, TypeURL: k.url, Raw: it.raw}
	r.Digest, unknown = Digest(m)
	return r, m, unknown, nil
}
