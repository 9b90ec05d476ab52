//go:build e2e

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binEnv names the directory that build.sh filled.
const binEnv = "E2E_BIN"

func TestMain(m *testing.M) {
	if name := os.Getenv(runAs); name != "" {
		os.Exit(program(name, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// The network: a bridge in the namespace of the test, and one namespace for each pod.
const (
	gateway = "10.77.0.1"
	proxyID = "1337"
)

// lab is a mesh on one machine.
type lab struct {
	t    *testing.T
	dir  string // readable by all
	kube *kube

	istiod *exec.Cmd
	pods   map[string]*pod
}

// pod is one pod: its application and its agent with the proxy.
type pod struct {
	name, netns, ip, account, app, version string
	agent                                  *exec.Cmd
}

func newLab(t *testing.T) *lab {
	t.Helper()
	bin := os.Getenv(binEnv)
	if bin == "" || os.Geteuid() != 0 {
		t.Skip("needs root, and the programs that make e2e-istio builds")
	}
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l := &lab{t: t, dir: dir, kube: newKube(), pods: map[string]*pod{}}
	for _, f := range []string{"sidecar", "pilot-agent", "pilot-discovery", "envoy_bootstrap_tmpl.json"} {
		l.run("cp", filepath.Join(bin, f), filepath.Join(dir, f))
	}
	// The mounts are this test's own: names of network namespaces are gone with it.
	l.run("mkdir", "-p", "/run/netns")
	l.run("mount", "-t", "tmpfs", "none", "/run/netns")
	l.run("ip", "link", "set", "lo", "up")
	l.run("ip", "link", "add", "br0", "type", "bridge")
	l.run("ip", "addr", "add", gateway+"/24", "dev", "br0")
	l.run("ip", "link", "set", "br0", "up")
	return l
}

// run runs a command to its end.
func (l *lab) run(name string, args ...string) string {
	l.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// spawn starts a command that ends with the test. Its output goes to a file, which is shown when the
// test fails.
func (l *lab) spawn(log string, env []string, name string, args ...string) *exec.Cmd {
	l.t.Helper()
	path := filepath.Join(l.dir, log+".log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		l.t.Fatal(err)
	}
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = f, f
	c.Env = append(os.Environ(), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		kill(c)
		_ = f.Close()
		if l.t.Failed() {
			b, _ := os.ReadFile(path)
			l.t.Logf("the end of %s:\n%s", path, b[max(0, len(b)-3000):])
		}
	})
	return c
}

// kill ends a command with all that it has started.
func kill(c *exec.Cmd) {
	if c.ProcessState == nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		_ = c.Wait()
	}
}

// until waits for a condition.
func (l *lab) until(what string, patience time.Duration, cond func() bool) {
	l.t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			l.t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (l *lab) startIstiod() {
	l.t.Helper()
	config := filepath.Join(l.dir, "kubeconfig")
	write(l.t, config, "apiVersion: v1\nkind: Config\nclusters: [{name: lab, cluster: {server: 'http://"+gateway+
		":15001'}}]\nusers: [{name: lab, user: {}}]\ncontexts: [{name: lab, context: {cluster: lab, user: lab}}]\ncurrent-context: lab\n")
	mesh := filepath.Join(l.dir, "mesh")
	write(l.t, mesh, "trustDomain: cluster.local\nrootNamespace: istio-system\ndefaultProviders: {metrics: [prometheus]}\n"+
		"enablePrometheusMerge: true\ndefaultConfig: {discoveryAddress: '"+gateway+":15012'}\n")
	l.istiod = l.spawn("istiod", []string{
		"POD_NAME=istiod", "POD_NAMESPACE=istio-system", "REVISION=default", "CLUSTER_ID=Kubernetes", "PILOT_CERT_PROVIDER=istiod",
		"KUBERNETES_SERVICE_HOST=", "KUBECONFIG=", "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER=false",
		"ROOT_CA_DIR=" + filepath.Join(l.dir, "cacerts"), "ISTIOD_CUSTOM_HOST=localhost," + gateway,
	}, filepath.Join(l.dir, "pilot-discovery"), "discovery", "--registries", "Kubernetes", "--kubeconfig", config,
		"--meshConfig", mesh, "--networksConfig", "/nonexistent", "--clusterID", "Kubernetes", "--domain", "cluster.local",
		"--httpAddr", gateway+":15080", "--httpsAddr", "", "--grpcAddr", gateway+":15010", "--secureGRPCAddr", gateway+":15012",
		"--monitoringAddr", gateway+":15014", "--ctrlz_address", "127.0.0.1", "--ctrlz_port", "15076")
	l.until("istiod", time.Minute, func() bool {
		return exec.Command("curl", "-fs", "-o", "/dev/null", "http://"+gateway+":15080/ready").Run() == nil
	})
	l.until("the certificate of the authority", time.Minute, func() bool { return l.rootCert() != "" })
}

func (l *lab) rootCert() string {
	data, _ := l.kube.get("/configmaps", "default/istio-ca-root-cert")["data"].(obj)
	return text(data["root-cert.pem"])
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// addPod makes a pod's network and starts its application and its agent.
func (l *lab) addPod(p *pod) {
	l.t.Helper()
	l.pods[p.name] = p
	p.netns = p.name
	l.run("ip", "netns", "add", p.netns)
	l.run("ip", "link", "add", "v-"+p.name, "type", "veth", "peer", "name", "eth0", "netns", p.netns)
	l.run("ip", "link", "set", "v-"+p.name, "master", "br0", "up")
	for _, args := range []string{
		"link set lo up", "addr add " + p.ip + "/24 dev eth0", "link set eth0 up", "route add default via " + gateway,
	} {
		l.run("ip", append([]string{"-n", p.netns}, strings.Fields(args)...)...)
	}
	l.run("ip", "netns", "exec", p.netns, filepath.Join(l.dir, "pilot-agent"), "istio-iptables", "-p", "15001", "-z", "15006",
		"-u", proxyID, "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020")
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	l.spawn(p.name+"-app", []string{runAs + "=serve"}, "ip", "netns", "exec", p.netns, self, p.name)
	l.startAgent(p)
}

func (l *lab) startAgent(p *pod) {
	l.t.Helper()
	dir := filepath.Join(l.dir, p.name)
	for _, d := range []string{"workload-spiffe-uds", "workload-spiffe-credentials", "credential-uds"} {
		write(l.t, filepath.Join(dir, "var/run/secrets", d, ".keep"), "")
	}
	write(l.t, filepath.Join(dir, "etc/istio/proxy/.keep"), "")
	write(l.t, filepath.Join(dir, "var/run/secrets/istio/root-cert.pem"), l.rootCert())
	write(l.t, filepath.Join(dir, "var/run/secrets/tokens/istio-token"), token(p))
	template, err := os.ReadFile(filepath.Join(l.dir, "envoy_bootstrap_tmpl.json"))
	if err != nil {
		l.t.Fatal(err)
	}
	write(l.t, filepath.Join(dir, "var/lib/istio/envoy/envoy_bootstrap_tmpl.json"), string(template))
	var labels strings.Builder
	for k, v := range p.labels() {
		fmt.Fprintf(&labels, "%s=%q\n", k, v)
	}
	write(l.t, filepath.Join(dir, "etc/istio/pod/labels"), labels.String())
	write(l.t, filepath.Join(dir, "etc/istio/pod/annotations"), "sidecar.istio.io/status=\"{}\"\n")
	l.run("chown", "-R", proxyID+":"+proxyID, dir)
	env := []string{
		"POD_NAME=" + p.name, "POD_NAMESPACE=default", "INSTANCE_IP=" + p.ip, "SERVICE_ACCOUNT=" + p.account, "HOST_IP=" + gateway,
		"ISTIO_CPU_LIMIT=2", "TRUST_DOMAIN=cluster.local", "PILOT_CERT_PROVIDER=istiod", "CA_ADDR=" + gateway + ":15012",
		"ISTIOD_SAN=istiod.istio-system.svc", "ISTIO_META_CLUSTER_ID=Kubernetes", "ISTIO_META_NODE_NAME=node-1",
		"ISTIO_META_INTERCEPTION_MODE=REDIRECT", "ISTIO_META_WORKLOAD_NAME=" + p.app, "ISTIO_META_MESH_ID=cluster.local",
		"ISTIO_META_OWNER=kubernetes://apis/apps/v1/namespaces/default/deployments/" + p.app, "ISTIO_META_APP_CONTAINERS=" + p.app,
		`ISTIO_META_POD_PORTS=[{"name":"http","containerPort":8080,"protocol":"TCP"},{"name":"tcp","containerPort":9000,"protocol":"TCP"}]`,
		`PROXY_CONFIG={"discoveryAddress":"` + gateway + `:15012","concurrency":2,"binaryPath":"` + filepath.Join(l.dir, "sidecar") + `"}`,
	}
	p.agent = l.spawn(p.name, env, "sh", "-c", `cd "$0" && exec "$@"`, dir, "ip", "netns", "exec", p.netns, "setpriv", "--reuid",
		proxyID, "--regid", proxyID, "--clear-groups", filepath.Join(l.dir, "pilot-agent"), "proxy", "sidecar", "--domain",
		"default.svc.cluster.local", "--proxyLogLevel=warning", "--proxyComponentLogLevel=misc:error",
		"--log_output_level=default:info", "--meshConfig", "/nonexistent")
}

func (p *pod) labels() map[string]string {
	return map[string]string{
		"app": p.app, "version": p.version, "service.istio.io/canonical-name": p.app,
		"service.istio.io/canonical-revision": p.version, "security.istio.io/tlsMode": "istio",
	}
}

// token is a service account's token, without a signature: the API server here trusts it.
func token(p *pod) string {
	part := func(v any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	now := time.Now()
	return part(obj{"alg": "none", "typ": "JWT"}) + "." + part(obj{
		"iss": "e2e", "aud": []string{"istio-ca"}, "sub": "system:serviceaccount:default:" + p.account,
		"exp": now.Add(24 * time.Hour).Unix(), "iat": now.Unix(),
		"kubernetes.io": obj{"namespace": "default", "pod": obj{"name": p.name}},
	}) + "." + base64.RawURLEncoding.EncodeToString([]byte("signature"))
}

// in runs one of our programs in a pod's network, or in that of the test for "".
func (l *lab) in(pod, program string, args ...string) *exec.Cmd {
	l.t.Helper()
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	c := exec.Command(self, args...)
	if pod != "" {
		c = exec.Command("ip", append([]string{"netns", "exec", pod, self}, args...)...)
	}
	c.Env = append(os.Environ(), runAs+"="+program)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// get asks from a pod.
func (l *lab) get(pod, proto, url, host string, header ...string) (r reply) {
	l.t.Helper()
	out, err := l.in(pod, "get", append([]string{proto, url, host}, header...)...).Output()
	if err != nil {
		l.t.Fatalf("get %s: %v", url, err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		l.t.Fatal(err)
	}
	return r
}

// admin reads a page of a pod's proxy or agent.
func (l *lab) admin(pod, url string) string {
	l.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", pod, "curl", "-s", "-m", "5", url).Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return string(out)
}

// traffic is a load that goes on.
type traffic struct {
	l   *lab
	c   *exec.Cmd
	in  io.WriteCloser
	out bytes.Buffer
}

func (l *lab) load(pod, url, host string) *traffic {
	l.t.Helper()
	x := &traffic{l: l, c: l.in(pod, "load", url, host)}
	x.c.Stdout, x.c.Stderr = &x.out, os.Stderr
	in, err := x.c.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	x.in = in
	if err := x.c.Start(); err != nil {
		l.t.Fatal(err)
	}
	return x
}

// stop ends the load, which must have lost nothing.
func (x *traffic) stop(t *testing.T) (sum tally) {
	t.Helper()
	_ = x.in.Close()
	if err := x.c.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(x.out.Bytes(), &sum); err != nil {
		t.Fatal(err)
	}
	if sum.Failed > 0 || sum.Total == 0 {
		t.Errorf("%d of %d requests failed, the first at %s", sum.Failed, sum.Total, sum.First)
	}
	return sum
}
