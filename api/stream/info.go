package stream

import (
	"net/netip"
	"time"

	"sidecar/api/header"
)

// Info is the record of one stream (Envoy's StreamInfo). It is filled along the way by whoever runs
// the stream and read by access logs, formatters, plugins and matchers; finishing the stream feeds
// it once to logs and histograms, so they can never disagree. Strings may point into the stream's
// header maps: readers that keep one must copy it.
type Info struct {
	// Start is when the first byte of the head was read; it has a monotonic part. The durations below
	// are from it; Unset means that it has not happened.
	Start             time.Time
	LastRxDownstream  time.Duration // the last byte of the request was received
	FirstTxUpstream   time.Duration
	LastTxUpstream    time.Duration
	FirstRxUpstream   time.Duration
	LastRxUpstream    time.Duration
	FirstTxDownstream time.Duration
	LastTxDownstream  time.Duration
	Complete          time.Duration // the stream is finished; total duration

	// Conn is the downstream connection; never nil.
	Conn *ConnInfo
	// Upstream is the attempt that is running or was the last.
	Upstream UpstreamInfo

	Request          *header.Map // nil before the head was read
	RequestTrailers  *header.Map
	Response         *header.Map
	ResponseTrailers *header.Map

	Details              string // response_code_details
	ConnectionTermDetail string
	RouteName            string
	VirtualHost          string
	VirtualCluster       string
	Cluster              string // the name as routed to, before alt_stat_name
	RequestID            string
	LocalReplyBody       string
	UpstreamAltStatName  string

	Flags          Flag
	Status         int // response code as sent; 0 if none
	Protocol       Protocol
	BytesReceived  uint64 // of the body
	BytesSent      uint64
	DownstreamWire Traffic
	UpstreamWire   Traffic
	StreamID       uint64
	Attempts       int
	HealthCheck    bool
	LogType        AccessLogType
	Internal       bool       // the request came from an internal address
	Remote         netip.Addr // the client as XFF tells; DOWNSTREAM_REMOTE_ADDRESS
	RemotePort     uint16
	OriginalPath   string
	// SchemeMatchUpstream says that :scheme is to tell of the upstream's transport.
	SchemeMatchUpstream bool
	ResponseTrigger     string

	// Metadata is dynamic metadata by namespace; values are of the JSON kinds (string, float64, bool,
	// nil, map[string]any, []any). nil until written.
	Metadata map[string]map[string]any
	// FilterState holds named objects of filters. nil until written.
	FilterState map[string]FilterObject

	// RouteMetadata and the like are filter_metadata of the configuration, in the same form.
	RouteMetadata       map[string]map[string]any
	VirtualHostMetadata map[string]map[string]any
	ClusterMetadata     map[string]map[string]any
}

// FilterObject is a value in the filter state.
type FilterObject struct {
	Value    any // string, []byte, int64, bool or a fmt.Stringer
	ReadOnly bool
}

// SetFilterState puts an object into the stream's filter state.
func (i *Info) SetFilterState(key string, o FilterObject) {
	if i.FilterState == nil {
		i.FilterState = map[string]FilterObject{}
	}
	i.FilterState[key] = o
}

// SetFilterState puts an object into the connection's filter state.
func (c *ConnInfo) SetFilterState(key string, o FilterObject) {
	if c.FilterState == nil {
		c.FilterState = map[string]FilterObject{}
	}
	c.FilterState[key] = o
}

// Unset is the value of a duration of Info that has not come to be.
const Unset time.Duration = -1

// Reset prepares the record for a new stream.
func (i *Info) Reset(start time.Time, conn *ConnInfo) {
	*i = Info{
		Start: start, Conn: conn,
		LastRxDownstream: Unset, FirstTxUpstream: Unset, LastTxUpstream: Unset,
		FirstRxUpstream: Unset, LastRxUpstream: Unset, FirstTxDownstream: Unset,
		LastTxDownstream: Unset, Complete: Unset,
	}
}

// Since returns the time from the start of the stream to t.
func (i *Info) Since(t time.Time) time.Duration { return t.Sub(i.Start) }

// AccessLogType is why a log line is written (%ACCESS_LOG_TYPE%).
type AccessLogType uint8

// The types of access log entries that the proxy writes.
const (
	LogNotSet AccessLogType = iota
	LogTCPUpstreamConnected
	LogTCPPeriodic
	LogTCPConnectionEnd
	LogDownstreamStart
	LogDownstreamPeriodic
	LogDownstreamEnd
	LogUpstreamPoolReady
	LogUpstreamPeriodic
	LogUpstreamEnd
	LogDownstreamTunnelSuccessfullyEstablished
	LogTCPConnectionStart
)

// String returns Envoy's name of the type.
func (a AccessLogType) String() string {
	return [...]string{
		"NotSet", "TcpUpstreamConnected", "TcpPeriodic", "TcpConnectionEnd", "DownstreamStart",
		"DownstreamPeriodic", "DownstreamEnd", "UpstreamPoolReady", "UpstreamPeriodic", "UpstreamEnd",
		"DownstreamTunnelSuccessfullyEstablished", "TcpConnectionStart",
	}[a]
}

// ConnInfo is what is known of a downstream connection. It is filled before the first stream and
// does not change afterwards, so every stream may read it.
type ConnInfo struct {
	ID     uint64
	Start  time.Time
	Local  Addr // where the client connected to, restored by original_dst or proxy_protocol
	Remote Addr // the client, restored by proxy_protocol
	Direct Addr // the peer of the socket
	// DirectLocal is the socket's own address; zero where it is Local.
	DirectLocal Addr
	SNI         string
	ALPN        string // application protocols as sniffed or negotiated
	Listener    string
	Chain       string // filter chain name

	TransportProtocol string // "raw_buffer" or "tls", as the inspector found
	JA3, JA4          string // fingerprints of the client's hello, if the inspector makes them
	TerminationDetail string
	TransportFailure  string
	LocalRestored     bool

	// ListenerMetadata is the listener's filter_metadata; Direction its traffic_direction (0, 1, 2).
	ListenerMetadata map[string]map[string]any
	Direction        int32

	// Metadata is the connection's dynamic metadata, as listener filters wrote it; nil if none did.
	Metadata map[string]map[string]any
	// Record is the connection's own record, which the listener logs at its end; nil if it logs
	// nothing. A terminal filter that serves the whole connection as one stream fills it.
	Record *Info
	// OnUpstream, if not nil, is called by a terminal filter that serves the whole connection as one
	// stream, once it has found a host. Network filters ask for it.
	OnUpstream func(*Info)

	// ProxyTLVs are those of the PROXY header that the listener was told to pass on.
	ProxyTLVs []ProxyTLV

	// TLS is the session, nil on plaintext.
	TLS *TLSInfo
	// FilterState holds objects with the connection's life span, written before the first stream.
	FilterState map[string]FilterObject
}

// ProxyTLV is one type-length-value entry of a PROXY header of version 2.
type ProxyTLV struct {
	Type  byte
	Value []byte
}

// TLSInfo is what a handshake established. It is filled by the TLS transport.
type TLSInfo struct {
	Version, Cipher, Group, SNI, ALPN, SessionID string
	PeerPresented, PeerValidated, Mutual         bool
	Peer, Own                                    CertInfo
	// PeerChainPEM are all certificates that the peer sent, its own first, each as CertInfo.PEM.
	PeerChainPEM string
	// PeerChainSHA256, PeerChainSHA1 and PeerChainSerials are of the same certificates, divided by commas.
	PeerChainSHA256, PeerChainSHA1, PeerChainSerials string
	// IssuerSHA256 and IssuerSerial are of the certificate that the peer's was verified with; empty if it
	// was not, or if the session was resumed.
	IssuerSHA256, IssuerSerial string
}

// CertInfo is what log lines and properties show of a certificate.
type CertInfo struct {
	Subject, Issuer, Serial, SHA256, SHA1, PEM string
	URISAN, DNSSAN, IPSAN, EmailSAN, OtherSAN  []string
	NotBefore, NotAfter                        time.Time
}

// UpstreamInfo is what is known of the attempt at an upstream.
type UpstreamInfo struct {
	Cluster          string // observability name
	Host             Addr   // the host as configured
	HostName         string
	Remote           Addr
	Local            Addr
	ConnID           uint64
	TransportFailure string
	Protocol         Protocol
	NumStreams       uint64
	PoolReady        time.Duration
	Region, Zone     string
	SubZone          string
	TLS              *TLSInfo
	HostMetadata     map[string]map[string]any
	// Conn is the connection's record, which the network filters of the cluster write to as it begins;
	// nil if the cluster has none.
	Conn     *ConnInfo
	Locality bool
}

// Addr is the address of a socket: IP and port, or the path of a unix socket.
type Addr struct {
	IP   netip.AddrPort
	Pipe string
	// text is kept since log lines print it with every stream of a connection.
	text string
}

// IPAddr makes an Addr of an IP and port; a mapped IPv4 address becomes plain IPv4.
func IPAddr(a netip.AddrPort) Addr {
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	return Addr{IP: a, text: a.String()}
}

// PipeAddr makes an Addr of a path; an abstract one begins with "@".
func PipeAddr(path string) Addr { return Addr{Pipe: path, text: path} }

// String returns "1.2.3.4:80", "[::1]:80" or the path; "" for none.
func (a Addr) String() string { return a.text }

// IsZero tells that there is no address.
func (a Addr) IsZero() bool { return a.text == "" }
