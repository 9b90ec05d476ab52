// Package metadataexchange is Istio's network filter metadata_exchange: over TLS connections that have
// agreed on its application protocol, both sides tell of their workloads before anything else.
package metadataexchange

import (
	"encoding/binary"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/filter"
	exchangepb "sidecar/api/sidecar/istio/exchange"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/workload"
)

// Name is Istio's name of the filter.
const Name = "istio.metadata_exchange"

// What is sent begins with a magic number and the size of what follows: an Any of a Struct with two
// fields.
const (
	magic      = 0x3D230467
	headerSize = 8
	maxSize    = 1 << 20

	keyMD = "x-envoy-peer-metadata"
	keyID = "x-envoy-peer-metadata-id"
)

//nolint:gochecknoglobals // immutable table
var fields = config.Fields[*exchangepb.MetadataExchange]{
	Used: "protocol additional_labels",
	NoOp: map[string]string{
		"enable_discovery": "needs a bootstrap extension that is refused; without it Istio's proxy finds nothing either",
	},
}

// Stats are "metadata_exchange.".
type Stats struct {
	NotFound       stats.Counter `stat:"alpn_protocol_not_found"`
	Found          stats.Counter `stat:"alpn_protocol_found"`
	InitialError   stats.Counter `stat:"initial_header_not_found"`
	HeaderNotFound stats.Counter `stat:"header_not_found"`
	Added          stats.Counter `stat:"metadata_added"`
}

// Env is what compiling may use.
type Env struct {
	NodeID string
	Node   *structpb.Struct // the node's metadata
}

// Config is a compiled filter. It is immutable.
type Config struct {
	stats    *Stats
	protocol string
	labels   []string
	preface  []byte
}

// Compile turns the configuration into a Config. It is for clusters, too.
func Compile(m *exchangepb.MetadataExchange, scope *stats.Scope, env Env) (*Config, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	c := &Config{protocol: m.GetProtocol(), labels: m.GetAdditionalLabels()}
	if c.protocol == "" {
		errs.Add(config.Field("protocol"), "is required")
	}
	c.preface = preface(workload.FromNode(env.Node, c.labels), env.NodeID)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	c.stats = stats.Bind[Stats](scope.Sub("metadata_exchange"))
	return c, nil
}

// preface is what a peer is sent.
func preface(w *workload.Workload, id string) []byte {
	s := &structpb.Struct{Fields: map[string]*structpb.Value{
		keyMD: structpb.NewStructValue(w.Struct()),
	}}
	if id != "" {
		s.Fields[keyID] = structpb.NewStringValue(id)
	}
	var a anypb.Any
	o := proto.MarshalOptions{Deterministic: true}
	if anypb.MarshalFrom(&a, s, o) != nil {
		return nil
	}
	b := make([]byte, headerSize, 1024)
	b, err := o.MarshalAppend(b, &a)
	if err != nil {
		return nil
	}
	binary.BigEndian.PutUint32(b, magic)
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-headerSize))
	return b
}

// NewNetworkFilter implements filter.NetworkFactory.
func (c *Config) NewNetworkFilter(conn *filter.Connection) any {
	key := workload.Downstream
	if conn.Upstream {
		key = workload.Upstream
	}
	if conn.Info.TLS == nil || conn.Info.TLS.ALPN != c.protocol {
		c.stats.NotFound.Inc()
		return nil
	}
	c.stats.Found.Inc()
	f := &Filter{cfg: c, conn: conn}
	conn.Info.SetFilterState(key, stream.FilterObject{Value: &f.peer})
	return f
}

// Filter is that of one connection. Its peer introduces itself with the first bytes.
type Filter struct {
	cfg  *Config
	conn *filter.Connection
	peer workload.Slot
	held buf.Buffer
}

// OnNewConnection implements filter.NewConnection.
func (f *Filter) OnNewConnection(t *stream.Turn) bool {
	f.conn.Wire.Write(t, f.cfg.preface)
	f.cfg.stats.Added.Inc()
	if f.conn.Upstream {
		return true
	}
	f.conn.Wire.Flush(t)
	return true
}

// OnRead implements wire.ReadTap.
func (f *Filter) OnRead(data *buf.Buffer, end bool) (again bool) {
	f.held.Append(data.Bytes())
	data.Reset()
	again = !f.take() && !end
	if !again {
		f.peer.Settle(nil) // unless it is settled
		data.Swap(&f.held)
		f.held.Reset()
	}
	return again
}

// take reads the peer's introduction; false asks for more.
func (f *Filter) take() (done bool) {
	b := f.held.Bytes()
	if len(b) < headerSize {
		return false
	}
	size := binary.BigEndian.Uint32(b[4:])
	if binary.BigEndian.Uint32(b) != magic || size > maxSize {
		f.cfg.stats.InitialError.Inc()
		return true
	}
	if uint64(len(b)) < headerSize+uint64(size) {
		return false
	}
	body := b[headerSize : headerSize+size]
	var a anypb.Any
	var s structpb.Struct
	if proto.Unmarshal(body, &a) != nil || a.UnmarshalTo(&s) != nil {
		f.cfg.stats.HeaderNotFound.Inc()
	} else if md := s.GetFields()[keyMD].GetStructValue(); md != nil {
		f.peer.Settle(workload.FromNode(md, f.cfg.labels))
	}
	f.held.Consume(headerSize + int(size))
	return true
}
