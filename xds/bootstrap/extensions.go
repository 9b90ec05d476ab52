package bootstrap

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	internalv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/bootstrap/internal_listener/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"

	"sidecar/internal/config"
)

var extensionFields = config.Fields[*corev3.TypedExtensionConfig]{
	Used: "typed_config",
	NoOp: map[string]string{"name": "the type of typed_config says which extension it is"},
}

// Istio's agent always switches internal listeners on, also where nothing uses them.
var internalListenerFields = config.Fields[*internalv3.InternalListener]{
	NoOp: map[string]string{
		"buffer_size_kb": "it is for internal listeners, which are refused where they are configured",
	},
}

// WasmService is a plugin that the bootstrap asks for, for its compiler.
type WasmService struct {
	Path    *config.Path
	Message *wasmv3.WasmService
}

func extensions(list []*corev3.TypedExtensionConfig, errs *config.Errors) (services []WasmService) {
	for i, ext := range list {
		path := config.Field("bootstrap_extensions").Index(i)
		extensionFields.Check(path, ext, errs)
		at := path.Field("typed_config")
		if config.TypeName(ext.GetTypedConfig()) == (*wasmv3.WasmService)(nil).ProtoReflect().Descriptor().FullName() {
			if msg, ok := config.OpenAs[*wasmv3.WasmService](at, ext.GetTypedConfig(), errs); ok {
				services = append(services, WasmService{at, msg})
			}
			continue
		}
		if config.TypeName(ext.GetTypedConfig()) != internalListenerFields.Message().FullName() {
			errs.Addf(at, "%w", config.UnknownType(ext.GetTypedConfig()))
			continue
		}
		if msg, ok := config.OpenAs[*internalv3.InternalListener](at, ext.GetTypedConfig(), errs); ok {
			internalListenerFields.Check(at, msg, errs)
		}
	}
	return services
}
