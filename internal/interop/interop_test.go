package interop

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Environment variables that name other programs than those that `make interop` builds. The proxy may
// be Envoy: what fails there too is the cases' own.
const (
	proxyVariable = "INTEROP_PROXY"
	toolsVariable = "INTEROP_TOOLS" // folder with grpc-go's client and server
)

const serverName = "interop.test"

// cases are all client cases but those that need credentials of a cloud, and pick_first_unary, for
// which grpc-go's server has no name to give. The quick ones are what -short plays.
func cases() []struct {
	name  string
	quick bool
} {
	return []struct {
		name  string
		quick bool
	}{
		{"empty_unary", true},
		{"large_unary", true},
		{"client_streaming", true},
		{"server_streaming", true},
		{"ping_pong", true},
		{"empty_stream", true},
		{"timeout_on_sleeping_server", true},
		{"cancel_after_begin", true},
		{"cancel_after_first_response", true},
		{"status_code_and_message", true},
		{"special_status_message", true},
		{"custom_metadata", true},
		{"unimplemented_method", true},
		{"unimplemented_service", true},
		{"orca_per_rpc", true},
		{"orca_oob", false},
		{"rpc_soak", false},
		{"channel_soak", false},
	}
}

func TestInterop(t *testing.T) {
	t.Parallel()
	proxy := program(t, proxyVariable, "../../bin/sidecar")
	tools := program(t, toolsVariable, "../../.cache/interop")
	s := start(t, proxy, filepath.Join(tools, "server"))
	for _, transport := range []string{"plaintext", "tls"} {
		for _, c := range cases() {
			if testing.Short() && !c.quick {
				continue
			}
			t.Run(transport+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				s.play(t, filepath.Join(tools, "client"), transport, c.name)
			})
		}
	}
}

func program(t *testing.T, variable, standard string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		path = standard
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make interop", err)
	}
	return path
}

// setting is one proxy and the server behind it.
type setting struct {
	plain, secure int // ports of the proxy
	ca            string
}

func (s *setting) play(t *testing.T, client, transport, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := []string{
		"-test_case=" + name, "-server_host=127.0.0.1", "-server_port=" + strconv.Itoa(s.plain),
	}
	if strings.HasPrefix(name, "orca_") {
		args = append(args, "-service_config_json="+
			`{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`)
	}
	if transport == "tls" {
		args[2] = "-server_port=" + strconv.Itoa(s.secure)
		args = append(args, "-use_tls", "-use_test_ca", "-ca_file="+s.ca, "-server_host_override="+serverName)
	}
	if out, err := exec.CommandContext(ctx, client, args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// start runs grpc-go's server behind the proxy, which ends the clients' TLS where there is any.
func start(t *testing.T, proxy, server string) *setting {
	t.Helper()
	dir := t.TempDir()
	ports := freePorts(t, 4)
	admin, up := ports[0], ports[1]
	s := &setting{plain: ports[2], secure: ports[3], ca: filepath.Join(dir, "cert.pem")}
	key := filepath.Join(dir, "key.pem")
	writeCertificate(t, s.ca, key)
	config, err := json.Marshal(bootstrap(admin, up, s, key))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, server, "-port="+strconv.Itoa(up))
	run(t, proxy, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
	await(t, func() error {
		conn, err := net.Dial("tcp", loopback(up))
		if err != nil {
			return err
		}
		return conn.Close()
	})
	await(t, func() error { return ready(t.Context(), loopback(admin)) })
	return s
}

func ready(ctx context.Context, admin string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/ready", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

// await retries until what is asked of is there: other processes tell of nothing.
func await(t *testing.T, ask func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not ready: %v", err)
		}
	}
}

func run(t *testing.T, binary string, args ...string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(binary), log.Bytes())
		}
	})
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts returns ports that were free together a moment ago.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, number)
	}
	return ports
}

func writeCertificate(t *testing.T, certificate, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: serverName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{serverName}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certificate, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", private)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

type object = map[string]any

const extensions = "type.googleapis.com/envoy.extensions."

func bootstrap(admin, up int, s *setting, key string) object {
	secure := listener("tls", s.secure)
	secure["filter_chains"].([]any)[0].(object)["transport_socket"] = object{ //nolint:forcetypeassert // ours
		"name": "envoy.transport_sockets.tls",
		"typed_config": object{
			"@type": extensions + "transport_sockets.tls.v3.DownstreamTlsContext",
			"common_tls_context": object{
				"alpn_protocols": []any{"h2"},
				"tls_certificates": []any{object{
					"certificate_chain": object{"filename": s.ca},
					"private_key":       object{"filename": key},
				}},
			},
		},
	}
	return object{
		"admin": object{"address": address(admin)},
		"static_resources": object{
			"listeners": []any{listener("plain", s.plain), secure},
			"clusters": []any{object{
				"name": "grpc", "type": "STATIC",
				"load_assignment": object{
					"cluster_name": "grpc",
					"endpoints": []any{object{"lb_endpoints": []any{
						object{"endpoint": object{"address": address(up)}},
					}}},
				},
				"typed_extension_protocol_options": object{
					"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
						"@type": extensions + "upstreams.http.v3.HttpProtocolOptions",
						"explicit_http_config": object{
							"http2_protocol_options": object{},
						},
					},
				},
			}},
		},
	}
}

func address(port int) object {
	return object{"socket_address": object{"address": "127.0.0.1", "port_value": port}}
}

func listener(name string, port int) object {
	hcm := object{
		"@type":       extensions + "filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix": name,
		"route_config": object{"virtual_hosts": []any{object{
			"name": "all", "domains": []any{"*"},
			"routes": []any{object{
				"match": object{"prefix": "/"},
				"route": object{"cluster": "grpc", "timeout": "0s"},
			}},
		}}},
		"http_filters": []any{object{
			"name":         "envoy.filters.http.router",
			"typed_config": object{"@type": extensions + "filters.http.router.v3.Router"},
		}},
	}
	return object{
		"name": name, "address": address(port),
		"filter_chains": []any{object{"filters": []any{object{
			"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm,
		}}}},
	}
}
