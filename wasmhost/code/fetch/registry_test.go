package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

var module = []byte("\x00asm\x01\x00\x00\x00 the rest")

// registry is an image registry: blobs and manifests by digest, tags, and how it wants to be asked.
type registry struct {
	t   *testing.T
	srv *httptest.Server

	mu       sync.Mutex // guards below
	blobs    map[string][]byte
	kinds    map[string]string
	tags     map[string]string
	basic    string // "user:password" for all but the token server
	realm    string // of a token server, "" for none; "self" is its own
	token    string // what the token server gives to tokenFor, or to anybody if that is empty
	tokenFor string
	scope    string // that the token server was asked for
	status   int    // answered instead, if it isn't 0
	redirect string // where blobs are
	paths    []string
}

func newRegistry(t *testing.T, withTLS bool) *registry {
	t.Helper()
	r := &registry{t: t, blobs: map[string][]byte{}, kinds: map[string]string{}, tags: map[string]string{}}
	if withTLS {
		r.srv = httptest.NewTLSServer(r)
	} else {
		r.srv = httptest.NewServer(r)
	}
	t.Cleanup(r.srv.Close)
	return r
}

func (r *registry) host() string {
	_, host, _ := strings.Cut(r.srv.URL, "//")
	return host
}

func (r *registry) client(o Options) *Client {
	if r.srv.TLS != nil {
		o.Roots = r.srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
	c := New(o)
	r.t.Cleanup(c.Close)
	return c
}

// blob keeps bytes and returns their descriptor.
func (r *registry) blob(kind string, b []byte) descriptor {
	d := descriptor{MediaType: kind, Digest: digestOf(b), Size: int64(len(b))}
	r.blobs[d.Digest] = b
	return d
}

// image keeps a manifest under a tag and returns its digest.
func (r *registry) image(tag, kind string, layers ...descriptor) string {
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": kind, "layers": layers})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.put(tag, kind, b)
}

func (r *registry) put(tag, kind string, b []byte) string {
	d := r.blob(kind, b).Digest
	r.kinds[d], r.tags[tag] = kind, d
	return d
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paths = append(r.paths, req.URL.Path)
	user, password, hasBasic := req.BasicAuth()
	who := user + ":" + password
	switch {
	case r.status != 0:
		w.WriteHeader(r.status)
		return
	case req.URL.Path == "/token":
		_ = req.ParseForm()
		r.scope = req.Form.Get("scope")
		if refresh := req.Form.Get("refresh_token"); refresh != "" {
			who = "refresh:" + refresh
		}
		if r.tokenFor != "" && who != r.tokenFor {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"token": %q}`, r.token)
		return
	case r.realm != "" && req.Header.Get("Authorization") != "Bearer "+r.token:
		realm := r.realm
		if realm == "self" {
			realm = r.srv.URL + "/token"
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	case r.basic != "" && (!hasBasic || who != r.basic):
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, name, isManifest := strings.Cut(req.URL.Path, "/manifests/")
	if !isManifest {
		_, name, _ = strings.Cut(req.URL.Path, "/blobs/")
		if r.redirect != "" {
			http.Redirect(w, req, r.redirect, http.StatusTemporaryRedirect)
			return
		}
	}
	if d, ok := r.tags[name]; ok {
		name = d
	}
	b, ok := r.blobs[name]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if isManifest {
		w.Header().Set("Content-Type", r.kinds[name])
	}
	_, _ = w.Write(b)
}

// archive is a tar of files, as "name=content".
func archive(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name, content, _ := strings.Cut(f, "=")
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zip(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
