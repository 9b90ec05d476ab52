package abi

import (
	"time"

	"sidecar/api/stats"
)

// Host is what a VM needs of the proxy. Called while the guest runs; nothing blocks.
type Host interface {
	Logger
	Caller
	GRPCCaller
	Lifecycle
	Environment
}

// Logger is where the plugin's log lines go.
type Logger interface {
	Log(level LogLevel, message string)
	LogLevel() LogLevel
}

// Lifecycle is about the plugin's root context.
type Lifecycle interface {
	// SetTick sets the period of on_tick; 0 stops it.
	SetTick(period time.Duration)
	// Done tells that the root context, whose on_done returned false, has finished: false when it
	// isn't waited for.
	Done() bool
}

// Environment is what the plugin was configured with, and the stores that it shares with others.
type Environment interface {
	Environ() []string // NAME=value
	Shared() *Shared
	// VMID is the name space in Shared.
	VMID() string
	// Stats is the scope of the plugin's own metrics.
	Stats() *stats.Scope
	// QueueReady is called, by whoever enqueues and on any goroutine, for a queue that this VM
	// registered. It must not block or call back.
	QueueReady(token uint32)
}

// Caller makes call-outs.
type Caller interface {
	// HTTPCall starts a request. The answer comes as a callback with the token. It owns c.
	HTTPCall(c HTTPCall) (token uint32, s Status)
	// HasCluster tells whether a call-out to the cluster could be made.
	HasCluster(name string) bool
	// ResolveDNS looks up a name's addresses; the answer comes as a callback with the token.
	ResolveDNS(name string) (token uint32, s Status)
	// Outcome is the code and message of the last call-out's failure (proxy_get_status).
	Outcome() (code uint32, message string)
}

// HTTPCall is a request that a plugin makes.
type HTTPCall struct {
	Cluster  string
	Headers  [][2]string
	Trailers [][2]string
	Body     []byte
	Timeout  time.Duration // 0 is none
	// From is the stream context in whose callback the call was made; nil for the root.
	From Context
}
