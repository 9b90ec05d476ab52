package server

import (
	"cmp"
	"slices"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidecar/internal/config/source"
)

// dumpSecrets is the SecretsConfigDump, all of it from what was redacted when it came.
func (s *Server) dumpSecrets() proto.Message {
	out := &adminv3.SecretsConfigDump{}
	for _, name := range s.secrets.order {
		out.StaticSecrets = append(out.StaticSecrets, &adminv3.SecretsConfigDump_StaticSecret{
			Name: name, Secret: resource(source.SecretType, s.secrets.static[name].redacted),
		})
	}
	list := s.secrets.list()
	slices.SortFunc(list, func(a, b *secret) int { return cmp.Compare(a.name, b.name) })
	for _, x := range list {
		if d, active := x.dump(); active {
			out.DynamicActiveSecrets = append(out.DynamicActiveSecrets, d)
		} else {
			out.DynamicWarmingSecrets = append(out.DynamicWarmingSecrets, d)
		}
	}
	return out
}

// dump shows the secret as Envoy does: one that has not come has its name only.
func (x *secret) dump() (d *adminv3.SecretsConfigDump_DynamicSecret, active bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.redacted != nil {
		return &adminv3.SecretsConfigDump_DynamicSecret{
			Name: x.name, VersionInfo: x.version, LastUpdated: timestamppb.New(x.updated),
			Secret: resource(source.SecretType, x.redacted),
		}, true
	}
	d = &adminv3.SecretsConfigDump_DynamicSecret{
		Name: x.name, VersionInfo: "uninitialized", LastUpdated: timestamppb.New(x.began),
	}
	if a, err := anypb.New(&tlsv3.Secret{Name: x.name}); err == nil {
		d.Secret = a
	}
	return d, false
}
