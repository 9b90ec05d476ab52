package tcpproxy

import (
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/xxhash"
)

//nolint:gochecknoglobals // immutable table
var (
	hashFields  = config.Fields[*typev3.HashPolicy]{Used: "source_ip filter_state"}
	stateFields = config.Fields[*typev3.HashPolicy_FilterState]{Used: "key"}
)

// hashPolicy is what consistent hashing goes by: an object of the filter state, or the client's
// address.
type hashPolicy struct{ key string }

// compileHash compiles hash_policy, of which there is at most one.
func compileHash(p *config.Path, list []*typev3.HashPolicy, errs *config.Errors) *hashPolicy {
	if len(list) == 0 {
		return nil
	}
	if len(list) > 1 {
		errs.Add(p, "must have at most one policy")
	}
	p = p.Index(0)
	hashFields.Check(p, list[0], errs)
	switch s := list[0].GetPolicySpecifier().(type) {
	case *typev3.HashPolicy_SourceIp_:
		return &hashPolicy{}
	case *typev3.HashPolicy_FilterState_:
		stateFields.Check(p.Field("filter_state"), s.FilterState, errs)
		return &hashPolicy{key: s.FilterState.GetKey()}
	}
	errs.Add(p, "needs source_ip or filter_state")
	return nil
}

// of hashes a connection; nil hashes nothing.
func (h *hashPolicy) of(info *stream.Info) (hash uint64, ok bool) {
	switch {
	case h == nil:
		return 0, false
	case h.key == "":
		return xxhash.Sum64(0, info.Remote.String()), info.Remote.IsValid()
	}
	v, found := info.FilterState[h.key]
	if !found && info.Conn != nil {
		v = info.Conn.FilterState[h.key]
	}
	s, ok := v.Value.(string)
	return xxhash.Sum64(0, s), ok
}
