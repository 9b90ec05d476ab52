package hcm

import (
	"net/netip"
	"strings"
	"testing"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// dropped are the fields that every request gets, left out of comparisons.
func requestFields(h *header.Map) string {
	out := []string{}
	for f := range strings.SplitSeq(names(h), " ") {
		switch {
		case strings.HasPrefix(f, ":") && !strings.HasPrefix(f, ":scheme"), strings.HasPrefix(f, "x-request-id="):
		case f == "":
		default:
			out = append(out, f)
		}
	}
	return strings.Join(out, " ")
}

func TestMutateRequest(t *testing.T) {
	t.Parallel()
	const edge = "use_remote_address: true"
	const inside = edge + "\ninternal_address_config: {cidr_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]}"
	for name, c := range map[string]struct {
		yaml string
		head []string
		want string
	}{
		"plain": {"", nil, ":scheme=http x-forwarded-proto=http"},
		"hop by hop": {
			"",
			[]string{"connection: close", "keep-alive: 1", "proxy-connection: x", "transfer-encoding: chunked", "upgrade: h2c", "te: gzip"},
			":scheme=http x-forwarded-proto=http",
		},
		"te trailers":           {"", []string{"te: gzip, trailers"}, ":scheme=http te=trailers x-forwarded-proto=http"},
		"proto kept":            {"", []string{"x-forwarded-proto: https"}, ":scheme=https x-forwarded-proto=https"},
		"proto that is none":    {"", []string{"x-forwarded-proto: ftp"}, ":scheme=http x-forwarded-proto=ftp"},
		"scheme overwritten":    {"scheme_header_transformation: {scheme_to_overwrite: https}", nil, ":scheme=https x-forwarded-proto=https"},
		"internal headers go":   {"", []string{"x-envoy-internal: true", "x-envoy-max-retries: 1", "x-envoy-retry-on: 5xx"}, ":scheme=http x-forwarded-proto=http"},
		"edge":                  {edge, nil, ":scheme=http x-envoy-external-address=192.0.2.7 x-forwarded-for=192.0.2.7 x-forwarded-proto=http"},
		"edge takes away":       {edge, []string{"x-envoy-original-path: /", "x-envoy-decorator-operation: x", "x-envoy-downstream-service-cluster: x"}, ":scheme=http x-envoy-external-address=192.0.2.7 x-forwarded-for=192.0.2.7 x-forwarded-proto=http"},
		"edge overwrites":       {edge, []string{"x-forwarded-proto: https", "x-forwarded-for: 1.1.1.1"}, ":scheme=http x-envoy-external-address=192.0.2.7 x-forwarded-for=1.1.1.1,192.0.2.7 x-forwarded-proto=http"},
		"edge, trusted hop":     {edge + "\nxff_num_trusted_hops: 1", []string{"x-forwarded-proto: https", "x-forwarded-for: 9.9.9.9, 1.1.1.1"}, ":scheme=https x-envoy-external-address=1.1.1.1 x-forwarded-for=9.9.9.9, 1.1.1.1,192.0.2.7 x-forwarded-proto=https"},
		"no append":             {edge + "\nskip_xff_append: true", nil, ":scheme=http x-envoy-external-address=192.0.2.7 x-forwarded-proto=http"},
		"forwarded port":        {edge + "\nappend_x_forwarded_port: true", nil, ":scheme=http x-envoy-external-address=192.0.2.7 x-forwarded-for=192.0.2.7 x-forwarded-port=8080 x-forwarded-proto=http"},
		"internal":              {inside, []string{"x-envoy-max-retries: 1"}, ":scheme=http x-envoy-internal=true x-envoy-max-retries=1 x-forwarded-for=192.0.2.7 x-forwarded-proto=http"},
		"not with a list":       {inside, []string{"x-forwarded-for: 192.0.2.9", "x-envoy-max-retries: 1"}, ":scheme=http x-envoy-external-address=192.0.2.7 x-forwarded-for=192.0.2.9,192.0.2.7 x-forwarded-proto=http"},
		"via":                   {"via: me", []string{"via: you"}, ":scheme=http via=you, me x-forwarded-proto=http"},
		"user agent":            {"add_user_agent: true", nil, ":scheme=http user-agent=svc x-envoy-downstream-service-cluster=svc x-envoy-downstream-service-node=node x-forwarded-proto=http"},
		"client certificate":    {"", []string{"x-forwarded-client-cert: a"}, ":scheme=http x-forwarded-proto=http"},
		"certificate anyway":    {"forward_client_cert_details: ALWAYS_FORWARD_ONLY", []string{"x-forwarded-client-cert: a"}, ":scheme=http x-forwarded-client-cert=a x-forwarded-proto=http"},
		"upgrade keeps its two": {"upgrade_configs: [{upgrade_type: x}]", []string{"connection: Upgrade", "upgrade: x"}, ":scheme=http connection=Upgrade content-length=0 upgrade=x x-forwarded-proto=http"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.yaml)
			r.begin()
			h := head(c.head...)
			r.post(stream.Event{Kind: stream.EventHeaders, Map: h, End: true})
			if got := requestFields(h); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	const generated = "00000000-0000-4007-8000-000000000007"
	for name, c := range map[string]struct {
		yaml, given, want string
	}{
		"made":             {"", "", generated},
		"kept inside":      {"", "given", "given"},
		"replaced at edge": {"use_remote_address: true", "given", generated},
		"preserved":        {"use_remote_address: true\npreserve_external_request_id: true", "given", "given"},
		"off":              {"generate_request_id: false", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.yaml)
			h := head()
			if c.given != "" {
				h.Add("x-request-id", c.given)
			}
			r.begin()
			r.post(stream.Event{Kind: stream.EventHeaders, Map: h, End: true})
			if got := h.Value(header.XRequestID); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestStripHost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ yaml, host, want string }{
		"kept":            {"", "a:8080", "a:8080"},
		"any port":        {"strip_any_host_port: true", "a:1", "a"},
		"IPv6":            {"strip_any_host_port: true", "[::1]:1", "[::1]"},
		"IPv6 alone":      {"strip_any_host_port: true", "[::1]", "[::1]"},
		"no port":         {"strip_any_host_port: true", "a:", "a:"},
		"not a port":      {"strip_any_host_port: true", "a:x", "a:x"},
		"too large":       {"strip_any_host_port: true", "a:70000", "a:70000"},
		"only a colon":    {"strip_any_host_port: true", ":1", ""},
		"matching port":   {"strip_matching_host_port: true", "a:8080", "a"},
		"other port":      {"strip_matching_host_port: true", "a:80", "a:80"},
		"dot":             {"strip_trailing_host_dot: true", "a.", "a"},
		"dot before port": {"strip_trailing_host_dot: true", "a.:80", "a:80"},
		"both":            {"strip_trailing_host_dot: true\nstrip_any_host_port: true", "a.:80", "a"},
		"empty":           {"strip_any_host_port: true", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.yaml)
			h := head(":authority: " + c.host)
			r.begin()
			r.post(stream.Event{Kind: stream.EventHeaders, Map: h, End: true})
			if got := h.Value(header.Authority); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestResponseHead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		yaml string
		resp []string
		want string
	}{
		"overwritten":    {"", []string{"server: up", "date: then", "connection: x", "keep-alive: 1", "transfer-encoding: chunked", "upgrade: x"}, ":status=200 date=then server=envoy"},
		"appended":       {"server_name: me\nserver_header_transformation: APPEND_IF_ABSENT", nil, ":status=200 date=now server=me"},
		"kept":           {"server_header_transformation: APPEND_IF_ABSENT", []string{"server: up"}, ":status=200 date=now server=up"},
		"passed through": {"server_header_transformation: PASS_THROUGH", nil, ":status=200 date=now"},
		"request id":     {"always_set_request_id_in_response: true", nil, ":status=200 date=now server=envoy x-request-id=00000000-0000-4007-8000-000000000007"},
		"via":            {"via: me", nil, ":status=200 date=now server=envoy via=me"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.yaml)
			r.request(true)
			r.respHeaders(true, c.resp...)
			if got := names(&r.enc.last); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestLastFromXFF(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		xff    string
		skip   int
		want   string
		single bool
	}{
		{"", 0, "", false},
		{"1.2.3.4", 0, "1.2.3.4", true},
		{" 1.2.3.4 ", 0, "1.2.3.4", true},
		{"1.2.3.4:80", 0, "1.2.3.4", true},
		{"[::1]:80", 0, "::1", true},
		{"::1", 0, "::1", true},
		{"::ffff:1.2.3.4", 0, "1.2.3.4", true},
		{"9.9.9.9, 1.2.3.4", 0, "1.2.3.4", false},
		{"9.9.9.9,1.2.3.4", 1, "9.9.9.9", false},
		{"9.9.9.9,1.2.3.4", 2, "", false},
		{"unknown", 0, "", false},
		{"1.2.3.4,", 0, "", false},
		{",", 1, "", false},
	} {
		a, single := lastFromXFF(c.xff, c.skip)
		got := ""
		if a.IsValid() {
			got = a.String()
		}
		if got != c.want || single != c.single {
			t.Errorf("%q, %d: %q %t, want %q %t", c.xff, c.skip, got, single, c.want, c.single)
		}
	}
}

func FuzzXFF(f *testing.F) {
	for _, s := range []string{"", "1.2.3.4", "a, b", "::1,,", "[::1]:80, 1.1.1.1:x", ",,,", " , ", "1.2.3.4%eth0"} {
		f.Add(s, 1)
	}
	f.Fuzz(func(t *testing.T, xff string, skip int) {
		skip &= 7
		got, _ := lastFromXFF(xff, skip)
		list := strings.Split(xff, ",")
		if skip >= len(list) {
			if got.IsValid() {
				t.Fatalf("%q, %d: %s", xff, skip, got)
			}
			return
		}
		item := strings.TrimSpace(list[len(list)-1-skip])
		want, err := netip.ParseAddr(item)
		if err != nil {
			ap, err := netip.ParseAddrPort(item)
			if err != nil {
				want = netip.Addr{}
			} else {
				want = ap.Addr()
			}
		}
		if got != want.Unmap() {
			t.Fatalf("%q, %d: %s, want %s", xff, skip, got, want)
		}
	})
}
