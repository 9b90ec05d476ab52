//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func pods() []*pod {
	return []*pod{
		{name: "app-1", ip: "10.77.0.11", account: "app", app: "app", version: "v1"},
		{name: "web-1", ip: "10.77.0.21", account: "web", app: "web", version: "v1"},
		{name: "web-2", ip: "10.77.0.22", account: "web", app: "web", version: "v2"},
	}
}

const node = "apiVersion: v1\nkind: Node\nmetadata: {name: node-1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}"

func (p *pod) object() string {
	labels, _ := json.Marshal(p.labels())
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default, labels: %s}
spec: {nodeName: node-1, serviceAccountName: %s, containers: [{name: app, ports: [{name: http, containerPort: 8080}]}]}
status: {phase: Running, podIP: %s, podIPs: [{ip: %s}], conditions: [{type: Ready, status: "True"}]}
`, p.name, labels, p.account, p.ip, p.ip)
}

// service is a service with the endpoints of pods; without an address it is a headless one.
func service(name, ip, app string, list ...*pod) string {
	if ip == "" {
		ip = "None"
	}
	var endpoints []string
	for _, p := range list {
		endpoints = append(endpoints, fmt.Sprintf("{addresses: [%s], conditions: {ready: true}, nodeName: node-1, targetRef: {kind: Pod, name: %s, namespace: default}}", p.ip, p.name))
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: default}
spec:
  clusterIP: %[2]s
  clusterIPs: [%[2]s]
  selector: {app: %[3]s}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: http2, port: 82, targetPort: 8082}, {name: tcp, port: 9000, targetPort: 9000}, {name: auto, port: 9001, targetPort: 8080}, {name: http-direct, port: 8080, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-x, namespace: default, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
endpoints: [%[4]s]
ports: [{name: http, port: 8080, protocol: TCP}, {name: http2, port: 8082, protocol: TCP}, {name: tcp, port: 9000, protocol: TCP}, {name: auto, port: 8080, protocol: TCP}, {name: http-direct, port: 8080, protocol: TCP}]
`, name, ip, app, strings.Join(endpoints, ", "))
}

const (
	web       = "http://10.96.0.2/"
	webHost   = "web"
	direct    = "http://10.77.0.21:8080/" // a pod, past the services
	spiffe    = "spiffe://cluster.local/ns/default/sa/"
	xfcc      = "X-Forwarded-Client-Cert"
	pushed    = 20 * time.Second // for a change of objects to take effect
	readyTime = 90 * time.Second
)

func (l *lab) apply(t *testing.T, text string) {
	t.Helper()
	if err := l.kube.apply(text); err != nil {
		t.Fatal(err)
	}
}

// TestIstio is one mesh through which the checks go one after another.
func TestIstio(t *testing.T) {
	l := newLab(t)
	if err := l.kube.serve(gateway + ":15001"); err != nil {
		t.Fatal(err)
	}
	list := pods()
	l.apply(t, node)
	for _, p := range list {
		l.apply(t, p.object())
	}
	l.apply(t, service("app", "10.96.0.1", "app", list[0]))
	l.apply(t, service("web", "10.96.0.2", "web", list[1:]...))
	l.apply(t, service("headless", "", "web", list[1:]...))
	l.startIstiod()
	for _, p := range list {
		l.addPod(p)
	}
	for _, p := range list {
		l.until(p.name+" to be ready", readyTime, func() bool {
			return l.admin(p.name, "http://127.0.0.1:15021/healthz/ready") == "" &&
				strings.Contains(l.admin(p.name, "http://127.0.0.1:15000/ready"), "LIVE") &&
				exec.Command("ip", "netns", "exec", p.name, "curl", "-fs", "http://127.0.0.1:15021/healthz/ready").Run() == nil
		})
	}
	for _, check := range []struct {
		name string
		run  func(t *testing.T, l *lab)
	}{
		{"permissive takes plaintext", permissive},
		{"mTLS between pods", mutualTLS},
		{"TCP", tcpService},
		{"HTTP/2", http2Service},
		{"headless", headless},
		{"self", selfCall},
		{"passthrough", passthrough},
		{"metrics", metrics},
		{"admin", adminPages},
		{"split moves under load", split},
		{"fault", faults},
		{"authorization", authorization},
		{"strict refuses plaintext", strict},
		{"plugin", plugin},
		{"endpoints go under load", endpointsGo},
		{"istiod restarts under load", istiodRestarts},
		{"drain under load", drain},
	} {
		t.Run(check.name, func(t *testing.T) { check.run(t, l) })
	}
}

func permissive(t *testing.T, l *lab) {
	r := l.get("", "h1", direct, "web")
	if r.Status != 200 || r.Headers.Get(xfcc) != "" {
		t.Errorf("%+v", r)
	}
}

func mutualTLS(t *testing.T, l *lab) {
	r := l.get("app-1", "h1", web, webHost)
	cert := r.Headers.Get(xfcc)
	if r.Status != 200 || !strings.Contains(cert, "By="+spiffe+"web;") || !strings.Contains(cert, "URI="+spiffe+"app") {
		t.Errorf("%+v", r)
	}
	for name := range r.Headers {
		if strings.HasPrefix(name, "X-Envoy-Peer-Metadata") || name == "X-Envoy-Decorator-Operation" {
			t.Errorf("the application sees %s", name)
		}
	}
	if !strings.HasPrefix(r.Remote, "127.0.0.6:") {
		t.Errorf("the application is called from %s", r.Remote)
	}
}

func tcpService(t *testing.T, l *lab) {
	out, err := l.in("app-1", "tcp", "10.96.0.2:9000").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "hello from web-") || !strings.HasSuffix(string(out), ": ping\n") {
		t.Errorf("%s %v", out, err)
	}
}

func http2Service(t *testing.T, l *lab) {
	if r := l.get("app-1", "h2", "http://10.96.0.2:82/", webHost+":82"); r.Status != 200 || r.Proto != "HTTP/2.0" {
		t.Errorf("%+v", r)
	}
	if r := l.get("app-1", "h1", "http://10.96.0.2:9001/", webHost+":9001"); r.Status != 200 || r.Headers.Get(xfcc) == "" {
		t.Errorf("protocol detection: %+v", r)
	}
}

func headless(t *testing.T, l *lab) {
	r := l.get("app-1", "h1", "http://10.77.0.22:8080/", "headless:8080")
	if r.Status != 200 || r.Headers.Get(xfcc) == "" {
		t.Errorf("%+v", r)
	}
}

func selfCall(t *testing.T, l *lab) {
	if r := l.get("app-1", "h1", "http://10.96.0.1/", "app"); r.Status != 200 || r.Pod != "app-1" {
		t.Errorf("%+v", r)
	}
}

// passthrough: an address that no service has is called as it is.
func passthrough(t *testing.T, l *lab) {
	if r := l.get("app-1", "h1", "http://"+gateway+":15080/ready", "x"); r.Status != 200 {
		t.Errorf("%+v", r)
	}
}

func metrics(t *testing.T, l *lab) {
	for pod, want := range map[string][]string{
		"app-1": {
			`reporter="source"`, `destination_service="web.default.svc.cluster.local"`, `destination_workload="web"`,
			`destination_principal="` + spiffe + `web"`, `source_workload="app"`, `response_code="200"`,
		},
		"web-1": {
			`reporter="destination"`, `source_workload="app"`, `source_principal="` + spiffe + `app"`,
			`connection_security_policy="mutual_tls"`,
		},
	} {
		l.until("istio_requests_total of "+pod, pushed, func() bool {
			_ = l.get("app-1", "h1", web, webHost)
			for line := range strings.Lines(l.admin(pod, "http://127.0.0.1:15020/stats/prometheus")) {
				ok := strings.HasPrefix(line, "istio_requests_total{")
				for _, w := range want {
					ok = ok && strings.Contains(line, w)
				}
				if ok {
					return true
				}
			}
			return false
		})
	}
	if s := l.admin("app-1", "http://127.0.0.1:15020/stats/prometheus"); !strings.Contains(s, "istio_tcp_connections_opened_total{") {
		t.Error("no metrics of TCP")
	}
}

func adminPages(t *testing.T, l *lab) {
	for page, want := range map[string]string{
		"config_dump": "ListenersConfigDump", "clusters?format=json": "outbound|80||web.default.svc.cluster.local",
		"certs": spiffe + "app", "server_info": "LIVE", "listeners?format=json": "virtualInbound",
	} {
		s := l.admin("app-1", "http://127.0.0.1:15000/"+page)
		if !json.Valid([]byte(s)) || !strings.Contains(s, want) {
			t.Errorf("%s: %.300s", page, s)
		}
	}
}

const subsets = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: default}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
`

func route(v1, v2 int) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web]
  http:
  - match: [{headers: {x-fail: {exact: "yes"}}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: web}}]
  - route: [{destination: {host: web, subset: v1}, weight: %d}, {destination: {host: web, subset: v2}, weight: %d}]
`, v1, v2)
}

func split(t *testing.T, l *lab) {
	l.apply(t, subsets)
	// As Istio's documentation says: subsets come before the rules that name them, since a route may
	// reach a proxy before the endpoints of its clusters do.
	l.until("the subsets", pushed, func() bool {
		return strings.Contains(l.admin("app-1", "http://127.0.0.1:15000/clusters"), "outbound|80|v2|web.default.svc.cluster.local::10.77.0.22")
	})
	l.apply(t, route(90, 10))
	share := func() float64 {
		x := l.load("app-1", web, webHost)
		time.Sleep(2 * time.Second)
		sum := x.stop(t)
		return float64(sum.Pods["web-2"]) / float64(max(sum.Total, 1))
	}
	l.until("a tenth", pushed, func() bool { s := share(); return s > 0.05 && s < 0.16 })
	x := l.load("app-1", web, webHost)
	l.apply(t, route(50, 50))
	l.until("a half", pushed, func() bool { s := share(); return s > 0.4 && s < 0.6 })
	x.stop(t)
}

// unsplit takes the rules of split away.
func (l *lab) unsplit(t *testing.T) {
	t.Helper()
	if err := l.kube.remove(route(50, 50)); err != nil {
		t.Fatal(err)
	}
	l.until("the routes to change", pushed, func() bool {
		return !strings.Contains(l.admin("app-1", "http://127.0.0.1:15000/config_dump?resource=dynamic_route_configs"), "outbound|9001|v2|")
	})
	if err := l.kube.remove(subsets); err != nil {
		t.Fatal(err)
	}
	l.until("the subsets to go", pushed, func() bool {
		return !strings.Contains(l.admin("app-1", "http://127.0.0.1:15000/clusters"), "outbound|9001|v2|")
	})
}

func faults(t *testing.T, l *lab) {
	if r := l.get("app-1", "h1", web, webHost, "x-fail", "yes"); r.Status != 418 {
		t.Errorf("%+v", r)
	}
}

const deny = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{from: [{source: {principals: ["cluster.local/ns/default/sa/app"]}}], to: [{operation: {paths: ["/private*"]}}]}]
`

func authorization(t *testing.T, l *lab) {
	l.apply(t, deny)
	l.until("403", pushed, func() bool { return l.get("app-1", "h1", web+"private/x", webHost).Status == 403 })
	if r := l.get("app-1", "h1", web+"public", webHost); r.Status != 200 {
		t.Errorf("%+v", r)
	}
	if err := l.kube.remove(deny); err != nil {
		t.Fatal(err)
	}
	l.until("200 again", pushed, func() bool { return l.get("app-1", "h1", web+"private/x", webHost).Status == 200 })
}

const strictMode = `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
`

func strict(t *testing.T, l *lab) {
	x := l.load("app-1", web, webHost)
	l.apply(t, strictMode)
	l.until("plaintext to be refused", pushed, func() bool { return l.get("", "h1", direct, "web").Status == 0 })
	x.stop(t)
}

func plugin(t *testing.T, l *lab) {
	path := filepath.Join(l.dir, "plugin.wasm")
	l.run("cp", "../../testdata/plugins/version/version.wasm", path)
	object := func(version string) string {
		return `apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: version, namespace: default}
spec: {selector: {matchLabels: {app: web}}, url: "file://` + path + `", pluginConfig: {version: ` + version + `}, pluginName: version, failStrategy: FAIL_CLOSE}
`
	}
	x := l.load("app-1", web, webHost)
	for _, version := range []string{"one", "two"} {
		l.apply(t, object(version))
		l.until("the plugin, "+version, pushed, func() bool {
			return strings.Contains(fmt.Sprint(l.get("app-1", "h1", web, webHost).Answered), version)
		})
	}
	x.stop(t)
	if err := l.kube.remove(object("two")); err != nil {
		t.Fatal(err)
	}
}

func endpointsGo(t *testing.T, l *lab) {
	l.unsplit(t) // subsets would be without endpoints
	x := l.load("app-1", "http://10.96.0.2:9001/", webHost+":9001")
	l.apply(t, service("web", "10.96.0.2", "web", l.pods["web-1"]))
	only := func() bool {
		y := l.load("app-1", "http://10.96.0.2:9001/", webHost+":9001")
		time.Sleep(time.Second)
		return y.stop(t).Pods["web-2"] == 0
	}
	l.until("only web-1 to be called", pushed, only)
	l.apply(t, service("web", "10.96.0.2", "web", l.pods["web-1"], l.pods["web-2"]))
	l.until("both to be called", pushed, func() bool { return !only() })
	x.stop(t)
}

func istiodRestarts(t *testing.T, l *lab) {
	x := l.load("app-1", web, webHost)
	kill(l.istiod)
	l.startIstiod()
	l.apply(t, subsets)
	l.until("the subsets", time.Minute, func() bool {
		return strings.Contains(l.admin("app-1", "http://127.0.0.1:15000/clusters"), "outbound|80|v2|web.default.svc.cluster.local::10.77.0.22")
	})
	l.apply(t, route(100, 0))
	l.until("a push after the restart", time.Minute, func() bool {
		y := l.load("app-1", web, webHost)
		time.Sleep(time.Second)
		return y.stop(t).Pods["web-2"] == 0
	})
	x.stop(t)
	l.unsplit(t)
}

// drain: a pod whose endpoint is taken away is asked to end.
func drain(t *testing.T, l *lab) {
	x := l.load("app-1", "http://10.96.0.2:9001/", webHost+":9001")
	time.Sleep(time.Second)
	l.apply(t, service("web", "10.96.0.2", "web", l.pods["web-1"]))
	time.Sleep(2 * time.Second)
	agent := l.pods["web-2"].agent
	if err := syscall.Kill(agent.Process.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- agent.Wait() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the agent does not end")
	}
	sum := x.stop(t)
	if sum.Pods["web-1"] == 0 {
		t.Errorf("%+v", sum)
	}
}
