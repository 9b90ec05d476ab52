package server

import (
	"time"

	"sidecar/internal/config"
	"sidecar/internal/log"
)

// Mode is what the process is started for.
type Mode uint8

// The modes of --mode.
const (
	// Serve runs until it is told to stop.
	Serve Mode = iota
	// Validate checks the configuration, says what is wrong with it, and ends.
	Validate
	// InitOnly starts as if to serve, and ends when everything has been initialized.
	InitOnly
)

// String gives the name that /server_info shows.
func (m Mode) String() string { return [...]string{"Serve", "Validate", "InitOnly"}[m] }

// DrainStrategy is how connections are closed over the drain time.
type DrainStrategy uint8

// The strategies of --drain-strategy.
const (
	// Gradual closes with a probability that grows over the drain time.
	Gradual DrainStrategy = iota
	// Immediate closes at once, as each connection allows it.
	Immediate
)

// String gives the name that /server_info shows.
func (s DrainStrategy) String() string { return [...]string{"Gradual", "Immediate"}[s] }

// Options are the command line, checked. The defaults are Envoy's. The fields that /server_info
// shows under command_line_options are all here.
type Options struct {
	// ConfigPath and ConfigYAML are the two parts of the bootstrap; at least one is set.
	ConfigPath, ConfigYAML string
	Mode                   Mode
	// Concurrency is at least 1.
	Concurrency int

	// ServiceNode, ServiceCluster and ServiceZone take the place of what the bootstrap says of the
	// node.
	ServiceNode, ServiceCluster, ServiceZone string
	// LocalAddressV6 asks for the IPv6 address of the machine as the local address.
	LocalAddressV6 bool
	// AdminAddressPath is the file that gets the address that the admin server listens at.
	AdminAddressPath string

	// StaticUnknown and DynamicUnknown say what becomes of unknown fields in the bootstrap and in
	// what comes over xDS.
	StaticUnknown, DynamicUnknown config.Unknown
	SkipDeprecatedLogs            bool

	DrainTime          time.Duration
	DrainStrategy      DrainStrategy
	ParentShutdownTime time.Duration

	// FileFlushInterval and FileFlushMinBytes say when access logs are written out.
	FileFlushInterval time.Duration
	FileFlushMinBytes int

	// WasmCompiler is the command that compiles a Wasm module in a process of its own; without one this
	// process does. WasmCacheDir is where modules and compiled code are kept; nowhere if it is empty.
	WasmCompiler []string
	WasmCacheDir string

	BaseID            uint32
	DisableHotRestart bool
	EnableCoreDump    bool

	// Logs is the application log, its levels and format set. LogFormatSet tells whether
	// --log-format was given: the bootstrap must not set another one then.
	Logs              *log.Logs
	LogFile           *log.File // nil when the log goes to stderr; SIGUSR1 reopens it
	LogFormat         string
	LogFormatSet      bool
	LogLevel          string
	LogPath           string
	ComponentLogLevel string

	// StatsTags are names and values of tags that every stat gets.
	StatsTags [][2]string

	// NoEffect are the flags that were given and change nothing, each with the reason: to be
	// logged.
	NoEffect []string
	// Version is the text of --version, without the name of the program.
	Version string
}
