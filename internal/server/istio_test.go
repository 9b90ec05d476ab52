package server_test

import (
	"compress/gzip"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/internal/server"
	"sidecar/xds/xdstest"
)

// istioDir holds what an agent writes and what istiod sends a sidecar.
const istioDir = "../../testdata/istio"

// captured reads what istiod sent in a scenario.
func captured(t testing.TB, scenario string) []proto.Message {
	t.Helper()
	f, err := os.Open(filepath.Join(istioDir, scenario+".pb.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var all discoveryv3.DiscoveryResponse
	if err := proto.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	var out []proto.Message
	for _, a := range all.GetResources() {
		m, err := a.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// agent is a management server where a bootstrap of pilot-agent expects the agent's sockets, with the
// secrets of a workload.
func agent(t testing.TB) (srv *xdstest.Server, bootstrap string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(istioDir, "bootstrap.json"))
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "XDS")
	srv, err = xdstest.Start(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Stop)
	text := strings.NewReplacer(
		"./etc/istio/proxy/XDS", socket, "./var/run/secrets/workload-spiffe-uds/socket", socket,
		`"port_value": 15600`, `"port_value": 0`, `"port_value": 15690`, `"port_value": 0`,
		`"port_value": 15621`, `"port_value": 0`, `"address": "0.0.0.0"`, `"address": "127.0.0.1"`,
	).Replace(string(raw))
	path := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return srv, path
}

// asAgent starts the server as pilot-agent does.
func asAgent(path string) func(*server.Options) {
	return func(o *server.Options) { o.ConfigPath, o.ConfigYAML, o.StaticUnknown = path, "", config.WarnUnknown }
}

// notBuilt are the reasons for which a scenario's resources are refused; nothing else may be.
func notBuilt() map[string][]string {
	return map[string][]string{
		"01-default": nil,
		"02-traffic": nil,
		"03-security": {
			"envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
			"envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
		},
		"04-telemetry-otel": {
			"extension_filter: is not supported", "access_loggers.", "CEL is not supported", "tracing.provider: is not supported",
		},
		"04-telemetry-zipkin": {
			"extension_filter: is not supported", "access_loggers.", "tracing.provider: is not supported",
		},
		"05-wasm":         {"envoy.extensions.filters.http.lua.v3.Lua", "/srv/plugins/f.wasm: no such file"},
		"07-serviceentry": nil,
	}
}

// TestIstio_Captures gives the process everything that istiod sends, scenario by scenario: it is in
// force, or refused by the name of what is not built.
func TestIstio_Captures(t *testing.T) {
	t.Parallel()
	list, err := filepath.Glob(istioDir + "/*.pb.gz")
	if err != nil {
		t.Fatal(err)
	}
	allowed := notBuilt()
	if len(list) != len(allowed) {
		t.Errorf("%d scenarios, %d with a word on what is not built", len(list), len(allowed))
	}
	for _, file := range list {
		scenario := strings.TrimSuffix(filepath.Base(file), ".pb.gz")
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			srv, path := agent(t)
			srv.Set(captured(t, scenario)...)
			p := start(t, "", asAgent(path))
			refused := map[string]bool{}
			for _, url := range []string{source.ClusterType, source.ListenerType} {
				e := answered(t, srv, url)
				for _, w := range refusals(e.Error) {
					if !slices.ContainsFunc(allowed[scenario], func(s string) bool { return strings.Contains(w, s) }) {
						refused[w] = true
					}
				}
			}
			if len(refused) > 0 {
				t.Errorf("refused:\n%s", strings.Join(slices.Sorted(maps.Keys(refused)), "\n"))
			}
			if allowed[scenario] == nil {
				p.waitStat("listener_manager.lds.update_success", 1)
				p.waitStat("cluster_manager.cds.update_success", 1)
			}
		})
	}
}

// answered waits for what the process says of the first resources of a type.
func answered(t *testing.T, srv *xdstest.Server, url string) xdstest.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	e, err := srv.Wait(ctx, func(e xdstest.Event) bool {
		return e.TypeURL == url && (e.Kind == xdstest.ACK || e.Kind == xdstest.NACK)
	})
	if err != nil {
		t.Fatalf("no answer to %s: %v", url, err)
	}
	return e
}

// refusals splits a NACK into its reasons; one that was cut off at the end is left out.
func refusals(nack string) (out []string) {
	for line := range strings.Lines(nack) {
		for w := range strings.SplitSeq(line, ", outbound|") {
			if w = strings.TrimSpace(w); w != "" && !strings.HasSuffix(w, "...(truncated)") {
				out = append(out, w)
			}
		}
	}
	return out
}
