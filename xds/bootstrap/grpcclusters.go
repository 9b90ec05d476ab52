package bootstrap

import (
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// grpcClusters finds the clusters that envoy_grpc names anywhere: those of ADS and of single config
// sources, also inside the typed configs of listeners. What can't be opened is skipped; its own
// compiler reports it.
func grpcClusters(msg *bootstrapv3.Bootstrap) map[string]bool {
	out := map[string]bool{}
	collectGRPC(msg.ProtoReflect(), out)
	return out
}

func collectGRPC(m protoreflect.Message, out map[string]bool) {
	switch x := m.Interface().(type) {
	case *corev3.GrpcService_EnvoyGrpc:
		out[x.GetClusterName()] = true
		return
	case *anypb.Any:
		// A type that is not linked has no compiler either.
		if opened, err := x.UnmarshalNew(); err == nil {
			collectGRPC(opened.ProtoReflect(), out)
		}
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, e protoreflect.Value) bool {
					collectGRPC(e.Message(), out)
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				collectGRPC(v.List().Get(i).Message(), out)
			}
		default:
			collectGRPC(v.Message(), out)
		}
		return true
	})
}
