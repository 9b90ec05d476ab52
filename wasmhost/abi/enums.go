package abi

// Status is what a host function returns to the guest.
type Status uint32

// The statuses.
const (
	OK Status = iota
	NotFound
	BadArgument
	SerializationFailure
	ParseFailure
	BadExpression
	InvalidMemoryAccess
	Empty
	CASMismatch
	ResultMismatch
	InternalFailure
	BrokenConnection
	Unimplemented
)

// LogLevel is the level of a log line.
type LogLevel uint32

// The log levels.
const (
	LogTrace LogLevel = iota
	LogDebug
	LogInfo
	LogWarn
	LogError
	LogCritical
)

// MapType names a header map.
type MapType uint32

// The header maps.
const (
	RequestHeaders MapType = iota
	RequestTrailers
	ResponseHeaders
	ResponseTrailers
	GRPCInitialMetadata
	GRPCTrailingMetadata
	CallResponseHeaders
	CallResponseTrailers
	numMaps
)

// BufferType names a buffer.
type BufferType uint32

// The buffers.
const (
	RequestBody BufferType = iota
	ResponseBody
	DownstreamData
	UpstreamData
	CallResponseBody
	GRPCReceiveBuffer
	VMConfiguration
	PluginConfiguration
	CallData
	numBuffers
)

// StreamType names what continue_stream and close_stream act on.
type StreamType uint32

// The stream types.
const (
	RequestStream StreamType = iota
	ResponseStream
	DownstreamStream
	UpstreamStream
	numStreams
)

// MetricType is the kind of a metric.
type MetricType uint32

// The metric types.
const (
	CounterMetric MetricType = iota
	GaugeMetric
	HistogramMetric
	numMetrics
)

// Action is what a callback of a stream returns.
type Action uint32

// The actions; larger numbers act like the largest one of their callback.
const (
	ActionContinue       Action = iota
	ActionStop                  // headers: StopAllIterationAndWatermark unless opted out of; body: buffer
	ActionContinueAndEnd        // headers: as Continue; body: StopIterationAndWatermark
	ActionStopAllBuffer         // headers: StopAllIterationAndBuffer; body: StopIterationNoBuffer
	ActionStopAllWatermark
)

// Version is the ABI version that a module declares by exporting a marker function.
type Version uint8

// The versions, zero being none.
const (
	NoVersion Version = iota
	V010
	V020
	V021
)
