package rbac

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.route.v3.HeaderMatcher", "envoy.type.matcher.v3.StringMatcher",
		"envoy.type.matcher.v3.MetadataMatcher", "envoy.type.matcher.v3.FilterStateMatcher", "envoy.type.v3.Int32Range",
	}, rulesFields, policyFields, permissionFields, principalFields, permissionSetFields, principalSetFields,
		authenticatedFields, config.CIDRFields, pathFields, extensionFields, templateFields)
}

func compile(t *testing.T, yaml string) (*Engine, error) {
	t.Helper()
	m := &rbacv3.RBAC{}
	if _, err := config.Parse("rules", config.YAML, []byte(yaml), m, config.RejectUnknown); err != nil {
		t.Fatal(err)
	}
	var errs config.Errors
	e := Compile(config.Field("rules"), m, &errs)
	return e, errs.Err()
}

// subject is a GET /a/b?c of spiffe://td/ns/n/sa/s, from 10.0.0.1, which says it is for 1.2.3.4.
func subject() *Subject {
	h := &header.Map{}
	for _, f := range []string{":method GET", ":path /a/b?c=/x", ":authority h", "x-a 1"} {
		name, value, _ := strings.Cut(f, " ")
		h.Add(name, value)
	}
	conn := &stream.ConnInfo{
		Local:  stream.IPAddr(netip.MustParseAddrPort("10.1.0.9:8080")),
		Remote: stream.IPAddr(netip.MustParseAddrPort("10.0.0.1:3333")),
		Direct: stream.IPAddr(netip.MustParseAddrPort("10.0.0.2:4444")), SNI: "sni.com",
		TLS: &stream.TLSInfo{Peer: stream.CertInfo{
			URISAN: []string{"spiffe://td/ns/n/sa/s"}, DNSSAN: []string{"dns.com"}, Subject: "CN=me",
		}},
	}
	info := &stream.Info{}
	info.Reset(time.Time{}, conn)
	info.Remote = netip.MustParseAddr("1.2.3.4")
	info.Metadata = map[string]map[string]any{"ns": {"k": "v"}}
	info.FilterState = map[string]stream.FilterObject{"s": {Value: "state"}}
	return &Subject{Headers: h, Info: info, Conn: conn}
}

func TestRules(t *testing.T) {
	t.Parallel()
	permission := func(p string) string { return "{permissions: [" + p + "], principals: [{any: true}]}" }
	principal := func(p string) string { return "{permissions: [{any: true}], principals: [" + p + "]}" }
	for _, tc := range []struct {
		name, policy string
		want         bool
	}{
		{"any", permission("{any: true}"), true},
		{"header", permission("{header: {name: x-a, string_match: {exact: '1'}}}"), true},
		{"other header", permission("{header: {name: x-a, string_match: {exact: '2'}}}"), false},
		{"header that must be absent", permission("{header: {name: x-b, present_match: true, invert_match: true}}"), true},
		{"path without its query", permission("{url_path: {path: {exact: /a/b}}}"), true},
		{"a path is no query", permission("{url_path: {path: {suffix: /x}}}"), false},
		{"template", permission(template("/a/{*}")), true},
		{"template with a name", permission(template("/{first}/b")), true},
		{"template of two segments", permission(template("/{*}/{*}/{*}")), false},
		{"template of any text", permission(template("/{**}")), true},
		{"template, not as a part", permission(template("/a")), false},
		{"destination address", permission("{destination_ip: {address_prefix: 10.1.0.0, prefix_len: 16}}"), true},
		{"other destination", permission("{destination_ip: {address_prefix: 10.2.0.0, prefix_len: 16}}"), false},
		{"destination port", permission("{destination_port: 8080}"), true},
		{"other port", permission("{destination_port: 80}"), false},
		{"port range", permission("{destination_port_range: {start: 8000, end: 8081}}"), true},
		{"the end of a range is not in it", permission("{destination_port_range: {start: 8000, end: 8080}}"), false},
		{"metadata", permission("{metadata: {filter: ns, path: [{key: k}], value: {string_match: {exact: v}}}}"), true},
		{"server name", permission("{requested_server_name: {exact: sni.com}}"), true},
		{"not", permission("{not_rule: {destination_port: 80}}"), true},
		{"and", permission("{and_rules: {rules: [{any: true}, {destination_port: 80}]}}"), false},
		{"or", permission("{or_rules: {rules: [{destination_port: 80}, {any: true}]}}"), true},
		{"one of the permissions", permission("{destination_port: 80}, {destination_port: 8080}"), true},
		{"TLS", principal("{authenticated: {}}"), true},
		{"URI name", principal("{authenticated: {principal_name: {exact: spiffe://td/ns/n/sa/s}}}"), true},
		{"DNS name", principal("{authenticated: {principal_name: {exact: dns.com}}}"), true},
		{"subject", principal("{authenticated: {principal_name: {exact: CN=me}}}"), true},
		{"other name", principal("{authenticated: {principal_name: {prefix: spiffe://other/}}}"), false},
		{"source", principal("{source_ip: {address_prefix: 10.0.0.1, prefix_len: 32}}"), true},
		{"direct remote", principal("{direct_remote_ip: {address_prefix: 10.0.0.2, prefix_len: 32}}"), true},
		{"remote", principal("{remote_ip: {address_prefix: 1.2.3.0, prefix_len: 24}}"), true},
		{"a remote is not the source", principal("{remote_ip: {address_prefix: 10.0.0.0, prefix_len: 8}}"), false},
		{"an IPv6 prefix", principal("{source_ip: {address_prefix: '::', prefix_len: 0}}"), false},
		{"a mapped prefix", principal("{source_ip: {address_prefix: '::ffff:10.0.0.1', prefix_len: 32}}"), true},
		{"header of a principal", principal("{header: {name: ':method', string_match: {exact: GET}}}"), true},
		{"path of a principal", principal("{url_path: {path: {prefix: /a}}}"), true},
		{"metadata of a principal", principal("{metadata: {filter: ns, path: [{key: k}], value: {string_match: {exact: w}}}}"), false},
		{"filter state", principal("{filter_state: {key: s, string_match: {exact: state}}}"), true},
		{"not of a principal", principal("{not_id: {authenticated: {}}}"), false},
		{"and of principals", principal("{and_ids: {ids: [{any: true}, {authenticated: {}}]}}"), true},
		{"or of principals", principal("{or_ids: {ids: [{source_ip: {address_prefix: 9.9.9.9, prefix_len: 32}}, {any: true}]}}"), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for action, want := range map[string]bool{"ALLOW": tc.want, "DENY": !tc.want, "LOG": true} {
				e, err := compile(t, "{action: "+action+", policies: {p: "+tc.policy+"}}")
				if err != nil {
					t.Fatal(err)
				}
				allowed, policy, matched := e.Decide(subject())
				if allowed != want || matched != tc.want || (policy == "p") != tc.want {
					t.Errorf("%s: allowed %v, policy %q, matched %v", action, allowed, policy, matched)
				}
			}
		})
	}
}

func template(text string) string {
	return `{uri_template: {name: t, typed_config: {"@type": ` +
		`type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: "` + text + `"}}}`
}

// TestPlaintext has no certificate, and a connection has no headers: nothing of them matches.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	s := subject()
	s.Headers, s.Conn.TLS = nil, nil
	for _, p := range []string{
		"{permissions: [{any: true}], principals: [{authenticated: {}}]}",
		"{permissions: [{any: true}], principals: [{authenticated: {principal_name: {prefix: ''}}}]}",
		"{permissions: [{url_path: {path: {prefix: ''}}}], principals: [{any: true}]}",
		"{permissions: [{header: {name: x-b, present_match: true, invert_match: true}}], principals: [{any: true}]}",
	} {
		e, err := compile(t, "{policies: {p: "+p+"}}")
		if err != nil {
			if strings.Contains(err.Error(), "prefix") {
				continue // refused
			}
			t.Fatal(err)
		}
		if allowed, _, _ := e.Decide(s); allowed {
			t.Errorf("%s matches", p)
		}
	}
}

// TestOrder: the policy that comes first by name decides.
func TestOrder(t *testing.T) {
	t.Parallel()
	const all = "{permissions: [{any: true}], principals: [{any: true}]}"
	e, err := compile(t, "{policies: {b: "+all+", a: "+all+", c: "+all+"}}")
	if err != nil {
		t.Fatal(err)
	}
	if _, policy, _ := e.Decide(subject()); policy != "a" {
		t.Errorf("policy %q", policy)
	}
}

func TestNoPolicies(t *testing.T) {
	t.Parallel()
	for action, want := range map[string]bool{"ALLOW": false, "DENY": true, "LOG": true} {
		e, err := compile(t, "{action: "+action+"}")
		if err != nil {
			t.Fatal(err)
		}
		if allowed, policy, matched := e.Decide(subject()); allowed != want || policy != "" || matched {
			t.Errorf("%s: allowed %v, policy %q", action, allowed, policy)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("{not_rule: ", 70) + "{any: true}" + strings.Repeat("}", 70)
	for _, tc := range []struct{ name, rules, want string }{
		{"prefix", "{policies: {p: {permissions: [{any: true}], principals: [{source_ip: {address_prefix: x}}]}}}", "principals[0].source_ip.address_prefix"},
		{"depth", "{policies: {p: {permissions: [" + deep + "], principals: [{any: true}]}}}", "is nested too deeply"},
		{"condition", "{policies: {p: {permissions: [{any: true}], principals: [{any: true}], condition: {id: '1'}}}}", "condition"},
		{"template", "{policies: {p: {permissions: [" + template("/{a") + "], principals: [{any: true}]}}}", "path_template"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, err := compile(t, tc.rules); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestDetails(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":      "rbac_access_denied_matched_policy[none]",
		"a b\n": "rbac_access_denied_matched_policy[a_b_]",
	} {
		if got := Details(in); got != want {
			t.Errorf("%q: %s", in, got)
		}
	}
}

func TestNote(t *testing.T) {
	t.Parallel()
	var info stream.Info
	Note(&info, "ns", "p_", "shadow", false, "x")
	Note(&info, "ns", "", "enforced", true, "")
	NoteLog(&info, true)
	m := info.Metadata["ns"]
	if m["p_shadow_engine_result"] != "denied" || m["p_shadow_effective_policy_id"] != "x" ||
		m["enforced_engine_result"] != "allowed" || len(m) != 3 || info.Metadata[LogNamespace][LogKey] != true {
		t.Errorf("%v", info.Metadata)
	}
}

// FuzzTemplate: whatever a template is, its expression compiles or it is refused.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"/a/{*}", "/{a=*}/{**}", "/{", "/}{", "/***", "x", "/{a=b=**}", "/\\Q"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		if text, ok := templateRegex(s); ok && text == "" {
			panic("an empty expression")
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	m := &rbacv3.RBAC{}
	rules := "{policies: {p: {permissions: [{header: {name: ':method', string_match: {exact: GET}}}], " +
		"principals: [{authenticated: {principal_name: {exact: spiffe://td/ns/n/sa/s}}}]}}}"
	if _, err := config.Parse("rules", config.YAML, []byte(rules), m, config.RejectUnknown); err != nil {
		b.Fatal(err)
	}
	var errs config.Errors
	e, s := Compile(nil, m, &errs), subject()
	b.ReportAllocs()
	for b.Loop() {
		if ok, _, _ := e.Decide(s); !ok {
			b.Fatal("denied")
		}
	}
}
