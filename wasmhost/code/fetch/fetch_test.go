package fetch

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestImageLayouts(t *testing.T) {
	t.Parallel()
	plain := archive(t, "other=x", "dir/plugin.wasm="+string(module))
	for _, tc := range []struct {
		name string
		make func(r *registry)
		want string // of an error, else the module is expected
	}{
		{"artifact", func(r *registry) {
			r.image("t", ociManifest, r.blob("application/vnd.module.wasm.config.v1+json", []byte("{}")), r.blob(wasmLayer, module))
		}, ""},
		{"artifact of one layer", func(r *registry) { r.image("t", ociManifest, r.blob(wasmLayer2, module)) }, ""},
		{"docker", func(r *registry) { r.image("t", dockerManifest, r.blob(dockerLayer, zip(t, plain))) }, ""},
		{"oci compat", func(r *registry) {
			r.image("t", ociManifest, r.blob(ociLayer, zip(t, archive(t, "a=b"))), r.blob(ociLayer, zip(t, plain)))
		}, ""},
		{"index", func(r *registry) {
			d := r.image("inner", ociManifest, r.blob(wasmLayer, module))
			r.put("t", ociIndex, fmt.Appendf(nil, `{"mediaType": %q, "manifests": [{"digest": "sha256:0"},
				{"digest": %q, "platform": {"os": "linux", "architecture": "amd64"}}]}`, ociIndex, d))
		}, ""},
		{"index for others", func(r *registry) {
			r.put("t", ociIndex, []byte(`{"manifests": [{"platform": {"architecture": "arm"}}, {}]}`))
		}, "none of the 2 images"},
		{"index in an index", func(r *registry) {
			d := r.put("inner", ociIndex, []byte(`{"manifests": []}`))
			r.put("t", ociIndex, fmt.Appendf(nil, `{"manifests": [{"digest": %q}]}`, d))
		}, "an index in an index"},
		{"no module in the layer", func(r *registry) {
			r.image("t", ociManifest, r.blob(ociLayer, zip(t, archive(t, "a=b"))))
		}, "there is no plugin.wasm"},
		{"module only in an earlier layer", func(r *registry) {
			r.image("t", ociManifest, r.blob(ociLayer, zip(t, plain)), r.blob(ociLayer, zip(t, archive(t, "a=b"))))
		}, "there is no plugin.wasm"},
		{"no module of that name", func(r *registry) {
			r.image("t", dockerManifest, r.blob(dockerLayer, zip(t, archive(t, "plugin.wasm=text"))))
		}, "is no Wasm module"},
		{"no layers", func(r *registry) { r.image("t", ociManifest) }, "an image of 0 layers"},
		{"another layer", func(r *registry) {
			r.image("t", ociManifest, r.blob("application/vnd.oci.image.layer.v1.tar+zstd", plain))
		}, "none of those that plugins come in"},
		{"another manifest", func(r *registry) { r.put("t", "application/json", []byte("{}")) }, "which is no image"},
		{"no JSON", func(r *registry) { r.put("t", ociManifest, []byte("<html>")) }, "no JSON"},
		{"no such tag", func(*registry) {}, "404"},
		{"a layer that isn't there", func(r *registry) {
			r.image("t", ociManifest, descriptor{MediaType: wasmLayer, Digest: digestOf([]byte("x"))})
		}, "404"},
		{"a layer that was changed", func(r *registry) {
			d := r.blob(wasmLayer, module)
			r.image("t", ociManifest, d)
			r.blobs[d.Digest] = append(bytes.Clone(module), 'x')
		}, errDigest.Error()},
		{"a digest of another kind", func(r *registry) {
			r.image("t", ociManifest, descriptor{MediaType: wasmLayer, Digest: "md5:../../x"})
		}, "not sha256"},
		{"a layer that says it is huge", func(r *registry) {
			r.image("t", ociManifest, descriptor{MediaType: wasmLayer, Digest: digestOf(module), Size: 1 << 40})
		}, "larger than"},
	} {
		for _, withTLS := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/tls=%v", tc.name, withTLS), func(t *testing.T) {
				t.Parallel()
				r := newRegistry(t, withTLS)
				tc.make(r)
				ref, err := ParseReference(Scheme + r.host() + "/some/image:t")
				if err != nil {
					t.Fatal(err)
				}
				got, err := r.client(Options{}).Image(t.Context(), ref, nil)
				if tc.want != "" {
					if err == nil || !strings.Contains(err.Error(), tc.want) {
						t.Errorf("error %v, want %q in it", err, tc.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.Code, module) || got.Manifest != r.tags["t"] {
					t.Errorf("code %q, manifest %s", got.Code, got.Manifest)
				}
			})
		}
	}
}

func TestPins(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, true)
	d := r.image("t", ociManifest, r.blob(wasmLayer, module))
	c := r.client(Options{})
	ref := Reference{Host: r.host(), Repository: "i", Digest: d}
	if _, err := c.Image(t.Context(), ref, nil); err != nil {
		t.Error(err)
	}
	r.blobs[d] = append(bytes.Clone(r.blobs[d]), ' ')
	if _, err := c.Image(t.Context(), ref, nil); err == nil || !strings.Contains(err.Error(), errDigest.Error()) {
		t.Errorf("error %v", err)
	}
}

func TestAuth(t *testing.T) {
	t.Parallel()
	secret := func(host, fields string) []byte {
		return fmt.Appendf(nil, `{"auths": {"other": {"auth": "eDp5"}, %q: {%s}}}`, host, fields)
	}
	auth := `"auth": "` + base64.StdEncoding.EncodeToString([]byte("me:hunter2")) + `"`
	for _, tc := range []struct {
		name   string
		make   func(r *registry)
		fields string
		want   string
	}{
		{"basic", func(r *registry) { r.basic = "me:hunter2" }, auth, ""},
		{"basic by name and password", func(r *registry) { r.basic = "me:hunter2" }, `"username": "me", "password": "hunter2"`, ""},
		{"basic, wrong", func(r *registry) { r.basic = "me:other" }, auth, "401"},
		{"basic, no secret", func(r *registry) { r.basic = "me:hunter2" }, "", "no image pull secret"},
		{"token for anybody", func(r *registry) { r.realm, r.token = "self", "tt" }, "", ""},
		{"token for me", func(r *registry) { r.realm, r.token, r.tokenFor = "self", "tt", "me:hunter2" }, auth, ""},
		{"token for another", func(r *registry) { r.realm, r.token, r.tokenFor = "self", "tt", "you:hunter2" }, auth, "403"},
		{"identity token", func(r *registry) { r.realm, r.token, r.tokenFor = "self", "tt", "refresh:id" }, `"identitytoken": "id"`, ""},
		{"token server elsewhere, plain", func(r *registry) { r.realm, r.token = "http://192.0.2.1/token", "tt" }, auth, "not https"},
		{"token server at a private address", func(r *registry) { r.realm, r.token = "https://127.0.0.1:1/token", "tt" }, auth, "not public"},
		{"token server by a private name", func(r *registry) { r.realm, r.token = "https://localhost:1/token", "tt" }, auth, "not public"},
		{"token server at the metadata address", func(r *registry) { r.realm, r.token = "https://169.254.169.254/", "tt" }, auth, "not public"},
		{"token server with a name in it", func(r *registry) { r.realm, r.token = "https://a:b@x/", "tt" }, auth, "not https"},
		{"no token server", func(r *registry) { r.realm, r.token = "x", "tt" }, auth, "no token server"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t, true)
			r.image("t", ociManifest, r.blob(wasmLayer, module))
			tc.make(r)
			ref := Reference{Host: r.host(), Repository: "some/image", Tag: "t"}
			var s []byte
			if tc.fields != "" {
				s = secret(r.host(), tc.fields)
			}
			_, err := r.client(Options{}).Image(t.Context(), ref, s)
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want %q in it", err, tc.want)
			case err != nil && strings.Contains(err.Error(), "hunter2"):
				t.Errorf("the error has the secret: %v", err)
			}
			if r.scope != "" && r.scope != "repository:some/image:pull" {
				t.Errorf("asked for %q", r.scope)
			}
		})
	}
}

func TestSecretsAreReadWhole(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "x", `{"auths": {"h": {"auth": "*"}}}`, `{"auths": {"h": {"auth": "eA=="}}}`} {
		if _, err := ParseSecret([]byte(bad), "h"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for key, host := range map[string]string{
		"https://index.docker.io/v1/": dockerHost, "docker.io": dockerHost, "h:5000": "h:5000", "http://h": "h",
	} {
		s := fmt.Appendf(nil, `{"auths": {%q: {"username": "me"}}}`, key)
		if c, err := ParseSecret(s, host); err != nil || c.Username != "me" {
			t.Errorf("%s: %v, %v", key, c, err)
		}
	}
}

// TestRedirects holds that an answer leads to no address that is not public.
func TestRedirects(t *testing.T) {
	t.Parallel()
	inner := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(module) }))
	defer inner.Close()
	for _, to := range []string{inner.URL, strings.Replace(inner.URL, "127.0.0.1", "localhost", 1)} {
		r := newRegistry(t, true)
		r.image("t", ociManifest, r.blob(wasmLayer, module))
		r.redirect = to
		_, err := r.client(Options{}).Image(t.Context(), Reference{Host: r.host(), Repository: "i", Tag: "t"}, nil)
		if err == nil || !strings.Contains(err.Error(), "not public") {
			t.Errorf("%s: error %v", to, err)
		}
	}
	r := newRegistry(t, true)
	r.image("t", ociManifest, r.blob(wasmLayer, module))
	r.redirect = "http://192.0.2.1/"
	_, err := r.client(Options{}).Image(t.Context(), Reference{Host: r.host(), Repository: "i", Tag: "t"}, nil)
	if err == nil || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("error %v", err)
	}
}

func TestPublicAddresses(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	defer c.Close()
	for _, a := range []string{
		"127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
		"[::1]", "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "224.0.0.1", "255.255.255.255",
	} {
		if _, err := dial(t.Context(), "tcp", a+":9"); err == nil || !strings.Contains(err.Error(), "not public") {
			t.Errorf("%s: error %v", a, err)
		}
	}
}

func TestPlainHTTPNeedsLeave(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	defer c.Close()
	s := &session{c: c, ref: Reference{Host: "registry.test"}}
	s.base = &url.URL{Scheme: "https", Host: "registry.test"}
	if !s.mayTrust() {
		t.Error("https is not trusted")
	}
	s.base.Scheme = "http"
	s.creds = Credentials{Username: "me", Password: "pass"}
	if _, err := s.authorize(t.Context(), "Basic"); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("error %v", err)
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	bomb := zip(t, make([]byte, 1<<20))
	for _, tc := range []struct {
		name   string
		status int
		body   []byte
		want   string
		again  bool
	}{
		{"module", 200, module, "", false},
		{"gzip", 200, zip(t, module), "", false},
		{"tar", 200, archive(t, "a.wasm="+string(module), "b=x"), "", false},
		{"tar.gz", 200, zip(t, archive(t, "a="+string(module))), "", false},
		{"first file is none", 200, archive(t, "a=x", "b="+string(module)), "not a Wasm module", false},
		{"page", 200, []byte("<html>"), "not a Wasm module", false},
		{"empty", 200, nil, "not a Wasm module", false},
		{"large", 200, append(bytes.Clone(module), make([]byte, 1<<17)...), "larger than 65536", false},
		{"bomb", 200, bomb, "larger than 65536", false},
		{"tar that says it is huge", 200, archive(t, "a="+strings.Repeat("x", 70000)), "larger than 65536", false},
		{"missing", 404, nil, "404", false},
		{"broken", 503, nil, "503", true},
		{"never", 501, nil, "501", false},
		{"busy", 429, nil, "429", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				_, _ = w.Write(tc.body)
			}))
			defer srv.Close()
			c := New(Options{MaxBytes: 1 << 16})
			defer c.Close()
			got, err := c.HTTP(t.Context(), srv.URL+"/x.wasm")
			switch {
			case tc.want == "" && (err != nil || !bytes.Equal(got, module)):
				t.Errorf("%q, %v", got, err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || Temporary(err) != tc.again):
				t.Errorf("error %v (temporary %v), want %q in it", err, Temporary(err), tc.want)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	defer c.Close()
	for _, bad := range []string{"", "x", "file:///etc/passwd", "http://", "ftp://a/b", "http://%zz"} {
		if _, err := c.HTTP(t.Context(), bad); err == nil {
			t.Errorf("%q was fetched", bad)
		}
	}
}

func TestParseReference(t *testing.T) {
	t.Parallel()
	pin := digestOf(nil)
	for _, tc := range []struct {
		in   string
		want Reference
	}{
		{"oci://host.test/a/b:v1", Reference{"host.test", "a/b", "v1", ""}},
		{"oci://host.test:5000/a", Reference{"host.test:5000", "a", "latest", ""}},
		{"oci://localhost/a", Reference{"localhost", "a", "latest", ""}},
		{"oci://[::1]:5000/a:x", Reference{"[::1]:5000", "a", "x", ""}},
		{"oci://user/image", Reference{dockerHost, "user/image", "latest", ""}},
		{"oci://image:1", Reference{dockerHost, "library/image", "1", ""}},
		{"oci://docker.io/user/image", Reference{dockerHost, "user/image", "latest", ""}},
		{"oci://host.test/a@" + pin, Reference{"host.test", "a", "", pin}},
		{"oci://host.test/a:v1@" + pin, Reference{"host.test", "a", "", pin}},
	} {
		if got, err := ParseReference(tc.in); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", tc.in, got, err)
		}
	}
	for _, bad := range []string{
		"", "host/a", "oci://", "oci:///a", "oci://host.test/", "oci://host.test/A", "oci://host.test/a:", "oci://host.test/a:b c",
		"oci://host.test/a@sha256:1", "oci://host.test/a@" + strings.ToUpper(pin), "oci://host.test/../a", "oci://host.test//a",
		"oci://u:p@host.test/a", "oci://host.test?x/a", "oci://" + strings.Repeat("a", 2000),
	} {
		if got, err := ParseReference(bad); err == nil {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"oci://host.test/a/b:v1", "oci://a", "oci://[::1]/a", "oci://h.t/a@" + digestOf(nil), "oci://h:1/a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err == nil && (r.Host == "" || r.Repository == "" || (r.Tag == "") == (r.Digest == "")) {
			t.Errorf("%q is %+v", s, r)
		}
	})
}

func FuzzChallenge(f *testing.F) {
	for _, s := range []string{
		"Basic", `Bearer realm="https://a/b",service="c",scope="d:e:f"`, "bearer realm=x, service=y", `Bearer realm="`, "=,=,\"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { parseChallenge(s) })
}

func FuzzUnpack(f *testing.F) {
	t := new(testing.T)
	for _, b := range [][]byte{
		nil, module, zip(t, module), archive(t, "a="+string(module)), zip(t, archive(t, "a=b")), zip(t, zip(t, module)),
		[]byte("\x1f\x8b"), archive(t), bytes.Repeat([]byte{0}, 1024),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Unpack(b, 1<<16)
		if err == nil && (!IsModule(got) || len(got) > max(1<<16, len(b))) {
			t.Errorf("%d bytes that are no module, or too many", len(got))
		}
	})
}

func FuzzManifest(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"layers": [{"mediaType": "application/wasm", "digest": "x"}]}`, `{"manifests": [{"platform": {"os": "linux"}}]}`, `[]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		m := new(manifest)
		if json.Unmarshal(b, m) == nil {
			_, _ = choose(m.Manifests)
		}
	})
}
