package hpack

import "sidecar/api/header"

type pair struct{ name, value string }

// staticPairs is RFC 7541 appendix A; index 0 is none.
//
//nolint:gochecknoglobals // immutable table
var staticPairs = [...]pair{
	{},
	{":authority", ""},
	{":method", "GET"},
	{":method", "POST"},
	{":path", "/"},
	{":path", "/index.html"},
	{":scheme", "http"},
	{":scheme", "https"},
	{":status", "200"},
	{":status", "204"},
	{":status", "206"},
	{":status", "304"},
	{":status", "400"},
	{":status", "404"},
	{":status", "500"},
	{"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"},
	{"accept-language", ""},
	{"accept-ranges", ""},
	{"accept", ""},
	{"access-control-allow-origin", ""},
	{"age", ""},
	{"allow", ""},
	{"authorization", ""},
	{"cache-control", ""},
	{"content-disposition", ""},
	{"content-encoding", ""},
	{"content-language", ""},
	{"content-length", ""},
	{"content-location", ""},
	{"content-range", ""},
	{"content-type", ""},
	{"cookie", ""},
	{"date", ""},
	{"etag", ""},
	{"expect", ""},
	{"expires", ""},
	{"from", ""},
	{"host", ""},
	{"if-match", ""},
	{"if-modified-since", ""},
	{"if-none-match", ""},
	{"if-range", ""},
	{"if-unmodified-since", ""},
	{"last-modified", ""},
	{"link", ""},
	{"location", ""},
	{"max-forwards", ""},
	{"proxy-authenticate", ""},
	{"proxy-authorization", ""},
	{"range", ""},
	{"referer", ""},
	{"refresh", ""},
	{"retry-after", ""},
	{"server", ""},
	{"set-cookie", ""},
	{"strict-transport-security", ""},
	{"transfer-encoding", ""},
	{"user-agent", ""},
	{"vary", ""},
	{"via", ""},
	{"www-authenticate", ""},
}

const staticLen = len(staticPairs) - 1

// staticEntry is a pair as the decoder hands it out. Sinks must not write to it.
type staticEntry struct {
	name, value []byte
	id          header.ID
}

//nolint:gochecknoglobals // immutable table, built from staticPairs
var staticEntries = makeStaticEntries()

func makeStaticEntries() (t [len(staticPairs)]staticEntry) {
	for i, p := range staticPairs {
		t[i] = staticEntry{name: []byte(p.name), value: []byte(p.value), id: header.Lookup(p.name)}
	}
	return t
}

// use tells what the encoder may do with a field.
type use uint8

const (
	useTable  use = iota // enters the dynamic table
	useOnce              // differs from message to message: an entry would only push out others
	useSecret            // never indexed, here or behind an intermediary (RFC 7541 section 7.1.3)
	useCookie            // a secret if it is short enough to be guessed
)

// shortCookie is the length below which a cookie is never indexed (nghttp2's).
const shortCookie = 20

// uses are the names that are not to enter the table whatever their value.
//
//nolint:gochecknoglobals // immutable table
var uses = []struct {
	use   use
	names []string
}{
	{useSecret, []string{
		"authorization", "proxy-authorization", "x-api-key", "x-auth-token", "x-csrf-token",
	}},
	{useCookie, []string{"cookie"}},
	{useOnce, []string{
		":path", "age", "content-length", "content-location", "content-range", "date", "etag",
		"expires", "grpc-message", "grpc-timeout", "if-modified-since", "if-none-match", "if-range",
		"if-unmodified-since", "last-modified", "location", "range", "referer", "retry-after",
		"set-cookie", "traceparent", "tracestate", "x-amzn-trace-id", "x-b3-parentspanid",
		"x-b3-spanid", "x-b3-traceid", "x-client-trace-id", "x-envoy-original-path",
		"x-envoy-upstream-service-time", "x-request-id",
	}},
}

// known is what the encoder knows of a name: the first static index that has it, and its use.
type known struct {
	index uint8
	use   use
}

// knownTable has the names of header.ID by that, the others by their text.
type knownTable struct {
	ids   [256]known
	names map[string]known
}

//nolint:gochecknoglobals // immutable table
var knownFields = makeKnown()

func makeKnown() *knownTable {
	t := &knownTable{names: make(map[string]known)}
	set := func(name string, change func(*known)) {
		if id := header.Lookup(name); id != header.None {
			change(&t.ids[id])
			return
		}
		k := t.names[name]
		change(&k)
		t.names[name] = k
	}
	for i := staticLen; i > 0; i-- { // the first of a name is set last
		set(staticPairs[i].name, func(k *known) { k.index = uint8(i) })
	}
	for _, u := range uses {
		for _, name := range u.names {
			set(name, func(k *known) { k.use = u.use })
		}
	}
	return t
}
