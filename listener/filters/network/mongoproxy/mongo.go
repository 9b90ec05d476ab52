// Package mongoproxy counts what passes on connections of MongoDB
// (envoy.filters.network.mongo_proxy). It changes nothing of it.
//
// DIVERGES(mongo-commands): operations are counted by kind, not by command, collection and call site;
// documents are not parsed. access_log, delay and dynamic metadata are refused.
package mongoproxy

import (
	"encoding/binary"
	"errors"
	"sync"

	mongov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/mongo_proxy/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
)

// Name is Envoy's name of the filter.
const Name = "envoy.filters.network.mongo_proxy"

//nolint:gochecknoglobals // immutable table
var fields = config.Fields[*mongov3.MongoProxy]{
	Used:    "stat_prefix",
	OffOnly: "emit_dynamic_metadata",
	Refused: "access_log delay",
	NoOp: map[string]string{
		"commands":       "commands are not counted one by one",
		"max_bson_depth": "documents are not parsed",
	},
}

// Stats are "mongo.PREFIX.".
type Stats struct {
	LocalActive    stats.Counter `stat:"cx_destroy_local_with_active_rq"`
	RemoteActive   stats.Counter `stat:"cx_destroy_remote_with_active_rq"`
	DrainClose     stats.Counter `stat:"cx_drain_close"`
	DecodingError  stats.Counter `stat:"decoding_error"`
	Delays         stats.Counter `stat:"delays_injected"`
	Command        stats.Counter `stat:"op_command"`
	CommandReply   stats.Counter `stat:"op_command_reply"`
	GetMore        stats.Counter `stat:"op_get_more"`
	Insert         stats.Counter `stat:"op_insert"`
	KillCursors    stats.Counter `stat:"op_kill_cursors"`
	Query          stats.Counter `stat:"op_query"`
	QueryAwait     stats.Counter `stat:"op_query_await_data"`
	QueryExhaust   stats.Counter `stat:"op_query_exhaust"`
	QueryMultiGet  stats.Counter `stat:"op_query_multi_get"`
	QueryNoMaxTime stats.Counter `stat:"op_query_no_max_time"`
	QueryNoTimeout stats.Counter `stat:"op_query_no_cursor_timeout"`
	QueryScatter   stats.Counter `stat:"op_query_scatter_get"`
	QueryTailable  stats.Counter `stat:"op_query_tailable_cursor"`
	Reply          stats.Counter `stat:"op_reply"`
	ReplyNotFound  stats.Counter `stat:"op_reply_cursor_not_found"`
	ReplyFailure   stats.Counter `stat:"op_reply_query_failure"`
	ReplyValid     stats.Counter `stat:"op_reply_valid_cursor"`
	QueryActive    stats.Gauge   `stat:"op_query_active"`
}

// Config is a compiled filter.
type Config struct {
	scope *stats.Scope
	stats *Stats
}

// Entry is the filter as the binary knows it.
func Entry() *filter.NetworkEntry {
	return &filter.NetworkEntry{
		Name: Name, Config: &mongov3.MongoProxy{},
		Compile: func(m proto.Message, c filter.NetworkContext) (any, error) {
			msg, ok := m.(*mongov3.MongoProxy)
			if !ok {
				return nil, errors.New("is no mongo_proxy configuration")
			}
			var errs config.Errors
			fields.Check(nil, msg, &errs)
			if err := errs.Err(); err != nil {
				return nil, err
			}
			scope := c.Scope.Sub("mongo." + msg.GetStatPrefix())
			return &Config{scope: scope, stats: stats.Bind[Stats](scope)}, nil
		},
	}
}

// Retire implements filter.Retirer.
func (c *Config) Retire() { c.scope.Close() }

// NewNetworkFilter implements filter.NetworkFactory.
func (c *Config) NewNetworkFilter(*filter.Connection) any {
	f := &Filter{stats: c.stats}
	f.way[0].f, f.way[1].f = f, f
	return f
}

// Filter watches one connection.
type Filter struct {
	stats *Stats
	way   [2]parser // from the client, from the server

	mu      sync.Mutex // guards below
	queries map[int32]struct{}
}

// OnRead implements wire.ReadTap.
func (f *Filter) OnRead(data *buf.Buffer, _ bool) bool { return f.way[0].feed(data.Bytes()) }

// OnWrite implements wire.WriteTap.
func (f *Filter) OnWrite(data *buf.Buffer) bool { return f.way[1].feed(data.Bytes()) }

// OnConnectionEnd implements filter.ConnectionEnd.
func (f *Filter) OnConnectionEnd(*stream.Info) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.queries); n > 0 {
		f.stats.QueryActive.Add(-int64(n))
		f.stats.RemoteActive.Inc()
	}
	f.queries = nil
}

// maxQueries bounds the queries of a connection that are followed.
const maxQueries = 4096

func (f *Filter) query(id int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queries == nil {
		f.queries = map[int32]struct{}{}
	}
	if _, twice := f.queries[id]; twice || len(f.queries) >= maxQueries {
		return
	}
	f.queries[id] = struct{}{}
	f.stats.QueryActive.Inc()
}

func (f *Filter) answered(id int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.queries[id]; ok {
		delete(f.queries, id)
		f.stats.QueryActive.Dec()
	}
}

// The operations of the wire protocol.
const (
	opReply        = 1
	opInsert       = 2002
	opQuery        = 2004
	opGetMore      = 2005
	opKillCursors  = 2007
	opCommand      = 2010
	opCommandReply = 2011

	headerSize = 16
	// flagsSize is what follows a header that is looked at: flags, and the cursor of a reply.
	flagsSize  = 12
	maxMessage = 48 << 20
)

// parser follows one direction, keeping nothing but the beginning of a message.
type parser struct {
	f    *Filter
	head [headerSize + flagsSize]byte
	have int
	skip int // bytes of the message that follow
}

// feed looks at what passes; false after something that is no message, as in Envoy.
func (p *parser) feed(b []byte) (again bool) {
	for len(b) > 0 {
		if p.skip > 0 {
			n := min(p.skip, len(b))
			p.skip -= n
			b = b[n:]
			continue
		}
		n := copy(p.head[p.have:p.want()], b)
		p.have += n
		b = b[n:]
		if p.have < p.want() {
			continue
		}
		if p.have == headerSize && p.want() > headerSize {
			continue
		}
		if !p.message() {
			p.f.stats.DecodingError.Inc()
			return false
		}
	}
	return true
}

// want is how much of the message has to be there before it is looked at.
func (p *parser) want() int {
	if p.have < headerSize {
		return headerSize
	}
	size := int(int32(binary.LittleEndian.Uint32(p.head[:])))
	return min(max(size, headerSize), len(p.head))
}

func (p *parser) message() bool {
	word := func(at int) int32 { return int32(binary.LittleEndian.Uint32(p.head[at:])) }
	size, id, to, op := word(0), word(4), word(8), word(12)
	if size < headerSize || size > maxMessage {
		return false
	}
	p.skip, p.have = int(size)-p.have, 0
	s := p.f.stats
	switch op {
	case opReply:
		s.Reply.Inc()
		p.reply(word(headerSize), binary.LittleEndian.Uint64(p.head[headerSize+4:]))
		p.f.answered(to)
	case opInsert:
		s.Insert.Inc()
	case opQuery:
		s.Query.Inc()
		p.query(word(headerSize))
		p.f.query(id)
	case opGetMore:
		s.GetMore.Inc()
	case opKillCursors:
		s.KillCursors.Inc()
	case opCommand:
		s.Command.Inc()
	case opCommandReply:
		s.CommandReply.Inc()
	default:
		return false
	}
	return true
}

func (p *parser) reply(flags int32, cursor uint64) {
	s := p.f.stats
	if flags&1 != 0 {
		s.ReplyNotFound.Inc()
	}
	if flags&2 != 0 {
		s.ReplyFailure.Inc()
	}
	if cursor != 0 {
		s.ReplyValid.Inc()
	}
}

func (p *parser) query(flags int32) {
	s := p.f.stats
	for _, x := range []struct {
		bit int32
		c   *stats.Counter
	}{{1 << 1, &s.QueryTailable}, {1 << 4, &s.QueryNoTimeout}, {1 << 5, &s.QueryAwait}, {1 << 6, &s.QueryExhaust}} {
		if flags&x.bit != 0 {
			x.c.Inc()
		}
	}
}
