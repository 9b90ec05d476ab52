package wasmhost

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	wasmv1 "sidecar/api/sidecar/wasm/v1"
	"sidecar/internal/config"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/code"
)

// Limits of one plugin.
type Limits struct {
	// StreamDeadline bounds each callback but those of the start, StartDeadline each of those. 0 is no
	// bound. DIVERGES(wasm-deadline): Envoy has none, and a guest that loops hangs a worker for ever.
	StreamDeadline, StartDeadline time.Duration
	// MemoryBytes bounds the memory of each VM.
	MemoryBytes int64
}

// DefaultLimits are those of a process that sets none.
func DefaultLimits() Limits {
	return Limits{StreamDeadline: time.Second, StartDeadline: time.Minute, MemoryBytes: 1 << 30}
}

// Policy says what a failed plugin means for streams.
type Policy uint8

// The policies. FailOpenLegacy is the deprecated fail_open, where the failing stream passes too.
const (
	FailClosed Policy = iota
	FailOpen
	FailReload
	FailOpenLegacy
)

// maxCodeBytes bounds a module; Istio's agent takes as much.
const maxCodeBytes = 256 << 20

// Config is a compiled PluginConfig. It never changes.
type Config struct {
	Name, RootID, VMID, Runtime string
	Policy                      Policy
	// ReloadBackoff is the least time between a failure and the new VM.
	ReloadBackoff time.Duration
	// AllowHeadersStop keeps StopIteration of a headers callback what it says.
	AllowHeadersStop bool
	Limits           Limits
	// Isolated: each stream has a VM for itself.
	Isolated  bool
	Recycling Recycling
	Canary    Canary

	// Either remote, or code that was read, with its digest.
	remote     *code.Remote
	nackOnMiss bool
	code       *heldCode
	codeBytes  int
	digest     [sha256.Size]byte

	configuration []byte
	vmConfig      []byte
	environ       []string
	capabilities  abi.Capabilities
}

var (
	pluginFields = config.Fields[*wasmv3.PluginConfig]{
		Used: `name root_id vm_config configuration fail_open failure_policy reload_config
			capability_restriction_config allow_on_headers_stop_iteration`,
	}
	vmFields = config.Fields[*wasmv3.VmConfig]{
		Used: `vm_id runtime code configuration environment_variables capability_restriction_config
			nack_on_code_cache_miss`,
		NoOp: map[string]string{
			"allow_precompiled": "the module is compiled here; a precompiled section would be of another " +
				"engine's, which Envoy skips too",
		},
	}
	environmentFields = config.Fields[*wasmv3.EnvironmentVariables]{Used: "host_env_keys key_values"}
	restrictionFields = config.Fields[*wasmv3.CapabilityRestrictionConfig]{Used: "allowed_capabilities"}
	reloadFields      = config.Fields[*wasmv3.ReloadConfig]{Used: "backoff"}
	backoffFields     = config.Fields[*corev3.BackoffStrategy]{
		Used: "base_interval",
		NoOp: map[string]string{"max_interval": "Envoy uses the base interval alone"},
	}
	codeFields  = config.Fields[*corev3.AsyncDataSource]{Used: "local remote"}
	limitFields = config.Fields[*wasmv1.Limits]{Used: "stream_deadline start_deadline memory_bytes"}

	recyclingFields = config.Fields[*wasmv1.Recycling]{Used: "streams age memory_bytes"}
	canaryFields    = config.Fields[*wasmv1.Canary]{Used: "percent streams errors"}
)

// FieldTables are the accounts of every message that Compile reads, for tests.
func FieldTables() []config.Table {
	return append(code.FieldTables(),
		pluginFields, vmFields, environmentFields, restrictionFields, reloadFields, backoffFields,
		codeFields, limitFields, recyclingFields, canaryFields,
	)
}

// runtimes are the engines that Envoy knows; the code of all runs on wasmtime here.
// DIVERGES(wasm-runtime): the name only appears in stats.
var runtimes = []string{"envoy.wasm.runtime.v8", "envoy.wasm.runtime.wasmtime", "envoy.wasm.runtime.wamr"}

// Compile checks a plugin's configuration and reads its code if that is in a file. l may be nil; what
// it leaves out is from def. Paths of errors start at c, those of l at limits.
func Compile(c *wasmv3.PluginConfig, l *wasmv1.Limits, def Limits) (*Config, error) {
	var errs config.Errors
	pluginFields.Check(nil, c, &errs)
	out := &Config{
		Name: c.GetName(), RootID: c.GetRootId(),
		AllowHeadersStop: c.GetAllowOnHeadersStopIteration().GetValue(),
		Policy:           policy(c, &errs),
		ReloadBackoff:    reloadBackoff(c.GetReloadConfig(), &errs),
		Limits:           limits(l, def, &errs),
		configuration:    anyBytes(config.Field("configuration"), c.GetConfiguration(), &errs),
	}
	vm := c.GetVmConfig()
	p := config.Field("vm_config")
	if vm == nil {
		errs.Add(p, "is required")
		return nil, errs.Err()
	}
	out.compileVM(p, vm, &errs)
	out.capabilities = restriction(p.Field("capability_restriction_config"), vm.GetCapabilityRestrictionConfig(), &errs)
	if old := c.GetCapabilityRestrictionConfig(); old != nil { //nolint:staticcheck // still accepted
		if vm.GetCapabilityRestrictionConfig() != nil {
			errs.Add(config.Field("capability_restriction_config"), "is set in vm_config too")
		}
		out.capabilities = restriction(config.Field("capability_restriction_config"), old, &errs)
	}
	return out, errs.Err()
}

func policy(c *wasmv3.PluginConfig, errs *config.Errors) Policy {
	p := config.Field("failure_policy")
	legacy := c.GetFailOpen() //nolint:staticcheck // still accepted
	if legacy && c.GetFailurePolicy() != wasmv3.FailurePolicy_UNSPECIFIED {
		errs.Add(p, "only one of fail_open or failure_policy can be set")
	}
	switch c.GetFailurePolicy() {
	case wasmv3.FailurePolicy_UNSPECIFIED:
		if legacy {
			return FailOpenLegacy
		}
		return FailClosed
	case wasmv3.FailurePolicy_FAIL_CLOSED:
		return FailClosed
	case wasmv3.FailurePolicy_FAIL_OPEN:
		return FailOpen
	case wasmv3.FailurePolicy_FAIL_RELOAD:
		return FailReload
	}
	errs.Addf(p, "%d is no failure policy", c.GetFailurePolicy())
	return FailClosed
}

func reloadBackoff(r *wasmv3.ReloadConfig, errs *config.Errors) time.Duration {
	p := config.Field("reload_config")
	reloadFields.Check(p, r, errs)
	b := r.GetBackoff()
	if b == nil {
		return time.Second
	}
	p = p.Field("backoff")
	backoffFields.Check(p, b, errs)
	d := config.Duration(p.Field("base_interval"), b.GetBaseInterval(), time.Second, errs)
	if d < time.Millisecond {
		errs.Add(p.Field("base_interval"), "must be at least 1ms")
	}
	return d
}

func limits(l *wasmv1.Limits, def Limits, errs *config.Errors) Limits {
	if l == nil {
		return def
	}
	p := config.Field("limits")
	limitFields.Check(p, l, errs)
	deadline := func(name string, d *durationpb.Duration, def time.Duration) time.Duration {
		v := config.Duration(p.Field(name), d, def, errs)
		if v < 0 {
			errs.Add(p.Field(name), "must not be negative")
		}
		return v
	}
	out := Limits{
		StreamDeadline: deadline("stream_deadline", l.GetStreamDeadline(), def.StreamDeadline),
		StartDeadline:  deadline("start_deadline", l.GetStartDeadline(), def.StartDeadline),
		MemoryBytes:    def.MemoryBytes,
	}
	if m := l.GetMemoryBytes(); m != 0 {
		if m < 64<<10 || m > 4<<30 {
			errs.Add(p.Field("memory_bytes"), "must be from 65536 to 4294967296")
		}
		out.MemoryBytes = int64(min(m, 4<<30))
	}
	return out
}

// CompileOwn is Compile for our own message. Paths of errors start at m.
func CompileOwn(m *wasmv1.Wasm, def Limits) (*Config, error) {
	var errs config.Errors
	out, err := Compile(m.GetConfig(), m.GetLimits(), def)
	errs.Wrap(config.Field("config"), err)
	r := recycling(config.Field("recycling"), m.GetRecycling(), &errs)
	c := canary(config.Field("canary"), m.GetCanary(), &errs)
	switch m.GetIsolation() {
	case wasmv1.Isolation_ISOLATION_UNSPECIFIED, wasmv1.Isolation_STREAM:
	default:
		errs.Addf(config.Field("isolation"), "%d is none", m.GetIsolation())
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	out.Recycling, out.Canary, out.Isolated = r, c, m.GetIsolation() == wasmv1.Isolation_STREAM
	return out, nil
}

func recycling(p *config.Path, m *wasmv1.Recycling, errs *config.Errors) Recycling {
	recyclingFields.Check(p, m, errs)
	r := Recycling{
		Streams: m.GetStreams(), Age: config.Duration(p.Field("age"), m.GetAge(), 0, errs),
		MemoryBytes: int64(min(m.GetMemoryBytes(), 4<<30)),
	}
	if m.GetAge() != nil && r.Age < time.Second {
		errs.Add(p.Field("age"), "must be at least 1s")
	}
	return r
}

func canary(p *config.Path, m *wasmv1.Canary, errs *config.Errors) Canary {
	canaryFields.Check(p, m, errs)
	if m == nil {
		return Canary{}
	}
	c := Canary{Percent: m.GetPercent(), Streams: uint64(m.GetStreams()), Errors: uint64(m.GetErrors())}
	if c.Percent < 1 || c.Percent > 99 {
		errs.Add(p.Field("percent"), "must be from 1 to 99")
	}
	if c.Streams == 0 {
		c.Streams = 1000
	}
	return c
}

// anyBytes is what the plugin gets to read: the text or bytes of a wrapper, else the message as it is
// encoded (also that of a Struct).
func anyBytes(p *config.Path, a *anypb.Any, errs *config.Errors) []byte {
	unwrap := func(m proto.Message) bool {
		if !a.MessageIs(m) {
			return false
		}
		if err := proto.Unmarshal(a.GetValue(), m); err != nil {
			errs.Addf(p, "%w", err)
		}
		return true
	}
	var text wrapperspb.StringValue
	var data wrapperspb.BytesValue
	switch {
	case a == nil:
		return nil
	case unwrap(&text):
		return []byte(text.GetValue())
	case unwrap(&data):
		return data.GetValue()
	}
	return slices.Clone(a.GetValue())
}

func (c *Config) compileVM(p *config.Path, vm *wasmv3.VmConfig, errs *config.Errors) {
	vmFields.Check(p, vm, errs)
	c.VMID, c.Runtime = vm.GetVmId(), vm.GetRuntime()
	if c.Runtime == "" {
		c.Runtime = runtimes[0]
	}
	if !slices.Contains(runtimes, c.Runtime) {
		errs.Addf(p.Field("runtime"), "no Wasm runtime %q; there are %s", c.Runtime, strings.Join(runtimes, ", "))
	}
	c.vmConfig = anyBytes(p.Field("configuration"), vm.GetConfiguration(), errs)
	env := vm.GetEnvironmentVariables()
	from, q := vm.GetCode(), p.Field("code")
	codeFields.Check(q, from, errs)
	switch {
	case from.GetRemote() != nil:
		values := maps.Clone(env.GetKeyValues())
		c.remote = code.Compile(q.Field("remote"), from.GetRemote(), values, errs)
		c.nackOnMiss = vm.GetNackOnCodeCacheMiss()
		if env != nil { // What is meant for whoever fetches the code isn't the plugin's.
			env = &wasmv3.EnvironmentVariables{HostEnvKeys: env.GetHostEnvKeys(), KeyValues: values}
		}
	case from.GetLocal() == nil:
		errs.Add(q.Field("local"), "is required")
	default:
		data, ok := config.ReadDataSource(q.Field("local"), from.GetLocal(), maxCodeBytes, errs)
		if ok {
			c.code, c.codeBytes, c.digest = holdCode(data), len(data), sha256.Sum256(data)
		}
	}
	c.environ = environment(p.Field("environment_variables"), env, errs)
}

// environment is read now: a host variable that isn't set is left out.
func environment(p *config.Path, e *wasmv3.EnvironmentVariables, errs *config.Errors) []string {
	environmentFields.Check(p, e, errs)
	var out []string
	seen := map[string]bool{}
	add := func(key, value string) {
		if seen[key] {
			errs.Addf(p, "key %q is duplicated", key)
		}
		seen[key] = true
		out = append(out, key+"="+value)
	}
	for _, key := range e.GetHostEnvKeys() {
		if value, ok := os.LookupEnv(key); ok { //nolint:forbidigo // what host_env_keys means
			add(key, value)
		}
	}
	for key, value := range e.GetKeyValues() {
		add(key, value)
	}
	slices.Sort(out)
	return out
}

// restriction: an empty map allows all.
func restriction(p *config.Path, r *wasmv3.CapabilityRestrictionConfig, errs *config.Errors) abi.Capabilities {
	restrictionFields.Check(p, r, errs)
	if len(r.GetAllowedCapabilities()) == 0 {
		return nil
	}
	out := abi.Capabilities{}
	for name := range r.GetAllowedCapabilities() {
		out[name] = true
	}
	return out
}

// String names the plugin in logs.
func (c *Config) String() string {
	return fmt.Sprintf("plugin %q (root_id %q, vm_id %q, code %s)", c.Name, c.RootID, c.VMID, c.source())
}

// With is the configuration with another one for the plugin, which is on no trial.
func (c *Config) With(configuration []byte) *Config {
	own := *c
	own.configuration, own.Canary = configuration, Canary{}
	return &own
}

// Configuration is what a plugin gets to read of a message. Errors are reported at p.
func Configuration(p *config.Path, a *anypb.Any, errs *config.Errors) []byte {
	return anyBytes(p, a, errs)
}
