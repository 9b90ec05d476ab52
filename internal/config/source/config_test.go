package source_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"sidecar/internal/config/source"
)

func compile(t *testing.T, js string) (*source.ConfigSource, error) {
	t.Helper()
	var cs corev3.ConfigSource
	if err := protojson.Unmarshal([]byte(js), &cs); err != nil {
		t.Fatal(err)
	}
	return source.Compile(&cs, "rds.config_source")
}

func TestCompile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "lds.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const grpc = `"transport_api_version":"V3","grpc_services":[{"envoy_grpc":{"cluster_name":"x"}}]`
	tests := []struct {
		name, config string
		want         source.ConfigSource
	}{
		{"ads", `{"ads":{}}`, source.ConfigSource{
			Kind: source.KindADS, InitialFetchTimeout: 15 * time.Second,
		}},
		{"wait for ever", `{"ads":{},"initial_fetch_timeout":"0s"}`, source.ConfigSource{
			Kind: source.KindADS,
		}},
		{"path", `{"path":"` + file + `"}`, source.ConfigSource{
			Kind: source.KindFile, Path: file, WatchedDirectory: dir,
			InitialFetchTimeout: 15 * time.Second,
		}},
		{
			"watched directory",
			`{"path_config_source":{"path":"` + file + `","watched_directory":{"path":"/tmp/"}}}`,
			source.ConfigSource{
				Kind: source.KindFile, Path: file, WatchedDirectory: "/tmp",
				InitialFetchTimeout: 15 * time.Second,
			},
		},
		{"grpc", `{"api_config_source":{"api_type":"GRPC",` + grpc + `}}`, source.ConfigSource{
			Kind: source.KindGRPC, InitialFetchTimeout: 15 * time.Second,
			GRPC: &source.GRPC{Cluster: "x", Authority: "x"},
		}},
		{
			"delta with all options", `{"api_config_source":{"api_type":"DELTA_GRPC",` +
				`"transport_api_version":"V3","set_node_on_first_message_only":true,` +
				`"rate_limit_settings":{"max_tokens":5},"grpc_services":[{"envoy_grpc":{` +
				`"cluster_name":"x","authority":"a","max_receive_message_length":9,` +
				`"retry_policy":{"retry_back_off":{"base_interval":"1s","max_interval":"2s"}}},` +
				`"initial_metadata":[{"key":"k","value":"v"}]}]}}`,
			source.ConfigSource{
				Kind: source.KindGRPC, InitialFetchTimeout: 15 * time.Second,
				GRPC: &source.GRPC{
					Delta: true, Cluster: "x", Authority: "a", SetNodeOnFirstMessageOnly: true,
					MaxReceiveMessageBytes: 9, BackOffBase: time.Second, BackOffMax: 2 * time.Second,
					Metadata:  [][2]string{{"k", "v"}},
					RateLimit: &source.RateLimit{MaxTokens: 5, FillRate: 10},
				},
			},
		},
		{
			"google_grpc", `{"api_config_source":{"api_type":"GRPC","transport_api_version":"V3",` +
				`"grpc_services":[{"google_grpc":{"target_uri":"h:1","stat_prefix":"s"}}]}}`,
			source.ConfigSource{
				Kind: source.KindGRPC, InitialFetchTimeout: 15 * time.Second,
				GRPC: &source.GRPC{TargetURI: "h:1"},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := compile(t, tt.config)
			if err != nil {
				t.Fatal(err)
			}
			if got.Key == "" {
				t.Error("no key")
			}
			got.Key = ""
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	const p = "rds.config_source"
	tests := []struct {
		name, config string
		want         []string
	}{
		{"nothing", `{}`, []string{p + ": Missing config source specifier"}},
		{"self", `{"self":{}}`, []string{p + ": Missing config source specifier"}},
		{"no file", `{"path":"/no/file"}`, []string{p + ".path: paths must refer to an existing path"}},
		{
			"no directory", `{"path_config_source":{"path":"/","watched_directory":{"path":"/no"}}}`,
			[]string{p + ".path_config_source.watched_directory: unable"},
		},
		{
			"all at once", `{"initial_fetch_timeout":"-1s","resource_api_version":"V2",` +
				`"api_config_source":{"api_type":"REST","transport_api_version":"V2",` +
				`"cluster_names":["x"],"rate_limit_settings":{"fill_rate":0}}}`,
			[]string{
				p + ".initial_fetch_timeout: must not", p + ".resource_api_version: V2",
				p + ".api_config_source.api_type: Unsupported config source REST",
				p + ".api_config_source.transport_api_version: V2",
				p + ".api_config_source.cluster_names: is not supported",
				p + ".api_config_source.grpc_services: must have exactly one entry, has 0",
				p + ".api_config_source.rate_limit_settings.fill_rate: must be",
			},
		},
		{
			"google_grpc with TLS", `{"api_config_source":{"api_type":"GRPC","grpc_services":[` +
				`{"google_grpc":{"channel_credentials":{"ssl_credentials":{}},"call_credentials":[{}],` +
				`"credentials_factory_name":"f","config":{},"channel_args":{}}}]}}`,
			[]string{
				"google_grpc.target_uri: ", "google_grpc.stat_prefix: ",
				"google_grpc.channel_credentials.ssl_credentials: is", "google_grpc.call_credentials: ",
				"google_grpc.credentials_factory_name: ", "google_grpc.config: ",
				"google_grpc.channel_args: ",
			},
		},
		{
			"envoy_grpc", `{"api_config_source":{"api_type":"GRPC","grpc_services":[{"envoy_grpc":{` +
				`"retry_policy":{"retry_back_off":{"base_interval":"2s","max_interval":"1s"}}},` +
				`"initial_metadata":[{"key":"k","raw_value":"eA=="}]}]}}`,
			[]string{
				"envoy_grpc.cluster_name: ", "retry_back_off.max_interval: ",
				"initial_metadata[0].raw_value: ",
			},
		},
		{
			"no target", `{"api_config_source":{"api_type":"GRPC","grpc_services":[{}]}}`,
			[]string{"grpc_services[0].target_specifier: required"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := compile(t, tt.config)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
	if _, err := source.Compile(nil, "x"); err == nil || !strings.Contains(err.Error(), "x: required") {
		t.Errorf("nil: %v", err)
	}
}

func TestDeliveryDoneOnce(t *testing.T) {
	t.Parallel()
	n := 0
	d := source.NewDelivery(&source.Resource{Name: "a"}, nil, func(error) { n++ })
	d.Done(nil)
	d.Done(nil)
	if n != 1 {
		t.Fatalf("answered %d times", n)
	}
}
