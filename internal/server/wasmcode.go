package server

import (
	"context"
	"os"
	"strings"
)

// wasmCacheDir is where the process keeps modules; checking a configuration keeps nothing.
func (s *Server) wasmCacheDir() string {
	if s.opts.Mode == Validate {
		return ""
	}
	return s.opts.WasmCacheDir
}

// insecureRegistries are the hosts that Istio's agent would fetch plugins from without TLS, by the
// variable that it takes them from.
func insecureRegistries() []string {
	var out []string
	for host := range strings.SplitSeq(os.Getenv("WASM_INSECURE_REGISTRIES"), ",") {
		if host = strings.TrimSpace(host); host != "" {
			out = append(out, host)
		}
	}
	return out
}

// fetching is implemented by factories of plugins whose code may have to be fetched.
type fetching interface {
	// Fetches tells that Warm won't wait for the code.
	Fetches() bool
	// Await waits for the first attempt, Serving until the plugin serves.
	Await(ctx context.Context)
	Serving(ctx context.Context) error
}

// fetches tells that a factory's start depends on others than the management server, so that its push
// is not to wait for it.
func fetches(f any) bool {
	w, ok := f.(fetching)
	return ok && w.Fetches()
}

// warmExtension readies a version that ECDS has brought. While its code is fetched, for however long, the
// version before it serves; the first one is in force after the first attempt, as Envoy's is, and means
// what the plugin's failure policy says. DIVERGES(wasm-remote-keeps-old): in Envoy the new version is in
// force at once, and without its code means the failure policy.
func (e *extension) warmExtension(ctx context.Context, f any) error {
	if err := warmFactory(ctx, f); err != nil {
		return err
	}
	w, ok := f.(fetching)
	switch {
	case !ok:
		return nil
	case e.slot.Load() != nil:
		return w.Serving(ctx)
	}
	w.Await(ctx)
	return ctx.Err()
}
