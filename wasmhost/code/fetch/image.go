package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Image is what was found in a registry.
type Image struct {
	Code []byte
	// Manifest is the digest of the image's manifest; that of the index, if it is one.
	Manifest string
}

// Types of manifests and layers.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociIndex       = "application/vnd.oci.image.index.v1+json"

	dockerLayer   = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	ociLayer      = "application/vnd.oci.image.layer.v1.tar+gzip"
	ociPlainLayer = "application/vnd.oci.image.layer.v1.tar"
	wasmLayer     = "application/vnd.module.wasm.content.layer.v1+wasm"
	wasmLayer2    = "application/wasm"

	// moduleFile is the name of the module in the layers that are archives.
	moduleFile = "plugin.wasm"
)

const (
	maxManifestBytes = 4 << 20
	maxLayers        = 1024
)

// descriptor points at a blob or at a manifest.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	Platform  struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	} `json:"platform"`
}

// manifest is that of an image, or an index of several.
type manifest struct {
	MediaType string       `json:"mediaType"`
	Layers    []descriptor `json:"layers"`
	Manifests []descriptor `json:"manifests"`
}

// session is one fetch from one registry.
type session struct {
	c     *Client
	ref   Reference
	base  *url.URL // of the registry's API
	creds Credentials
	auth  string // the Authorization header, once there is one
}

// Image fetches a module from a registry. Three layouts are taken, as Istio documents them: an artifact
// whose layer is the module, and images of docker's or OCI's kind with a file plugin.wasm in their last
// layer. secret is a docker configuration; nil is none.
func (c *Client) Image(ctx context.Context, ref Reference, secret []byte) (*Image, error) {
	s := &session{c: c, ref: ref, base: &url.URL{Scheme: "https", Host: ref.Host}}
	if len(secret) > 0 {
		var err error
		if s.creds, err = ParseSecret(secret, ref.Host); err != nil {
			return nil, err
		}
	}
	raw, kind, err := s.manifest(ctx, ref.name())
	if errors.Is(err, http.ErrSchemeMismatch) && (loopback(s.base) || c.insecure(s.base)) {
		s.base.Scheme = "http" // As image tools do, for hosts where it is safe or allowed.
		raw, kind, err = s.manifest(ctx, ref.name())
	}
	if err != nil {
		return nil, err
	}
	out := &Image{Manifest: digestOf(raw)}
	m, err := s.resolve(ctx, raw, kind)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.where(), err)
	}
	if out.Code, err = s.module(ctx, m); err != nil {
		return nil, fmt.Errorf("%s: %w", s.where(), err)
	}
	return out, nil
}

// where names the image in errors.
func (s *session) where() string {
	sep := ":"
	if s.ref.Digest != "" {
		sep = "@"
	}
	return Scheme + s.ref.Host + "/" + s.ref.Repository + sep + s.ref.name()
}

// get makes a request of the registry's API, and a second one if it wants to know who asks.
func (s *session) get(ctx context.Context, path, accept string, limit int64) (body []byte, kind string, err error) {
	u := s.base.JoinPath(path)
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
		if err != nil {
			return nil, "", err
		}
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		if s.auth != "" {
			req.Header.Set("Authorization", s.auth)
		}
		resp, err := s.c.do(req, hostPort(s.base))
		if err != nil {
			return nil, "", err
		}
		if resp.StatusCode == http.StatusUnauthorized && try == 0 {
			_ = resp.Body.Close()
			if s.auth, err = s.authorize(ctx, resp.Header.Get("WWW-Authenticate")); err != nil {
				if _, ok := errors.AsType[*Error](err); ok {
					return nil, "", err
				}
				return nil, "", &Error{URL: u.Redacted(), Status: resp.StatusCode, Err: err}
			}
			continue
		}
		body, err := take(u, resp, limit)
		return body, resp.Header.Get("Content-Type"), err
	}
}

func take(u *url.URL, resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(u, resp)
	}
	body, err := read(resp.Body, limit)
	if err != nil {
		_, large := errors.AsType[sizeError](err)
		return nil, &Error{URL: u.Redacted(), Err: err, Temporary: !large}
	}
	return body, nil
}

// manifest fetches a manifest by tag or digest, and verifies it if it is by digest.
func (s *session) manifest(ctx context.Context, name string) (raw []byte, kind string, err error) {
	accept := strings.Join([]string{ociManifest, dockerManifest, ociIndex, dockerIndex}, ", ")
	raw, kind, err = s.get(ctx, "v2/"+s.ref.Repository+"/manifests/"+name, accept, maxManifestBytes)
	if err == nil && strings.HasPrefix(name, sha256Prefix) && digestOf(raw) != name {
		return nil, "", &Error{URL: s.where(), Err: errDigest}
	}
	return raw, kind, err
}

// resolve reads a manifest, through an index if it is one.
func (s *session) resolve(ctx context.Context, raw []byte, kind string) (*manifest, error) {
	for depth := 0; ; depth++ {
		m := new(manifest)
		if err := json.Unmarshal(raw, m); err != nil {
			return nil, errors.New("the manifest is no JSON object")
		}
		if m.MediaType == "" {
			m.MediaType, _, _ = strings.Cut(kind, ";")
		}
		switch m.MediaType {
		case dockerManifest, ociManifest:
			return m, nil
		case dockerIndex, ociIndex:
		default:
			return nil, fmt.Errorf("a manifest of type %q, which is no image", m.MediaType)
		}
		if depth > 0 {
			return nil, errors.New("an index in an index")
		}
		d, err := choose(m.Manifests)
		if err != nil {
			return nil, err
		}
		if raw, kind, err = s.manifest(ctx, d.Digest); err != nil {
			return nil, err
		}
	}
}

// choose takes the image for Wasm out of an index, or that for linux/amd64, which image tools take by
// default, or the only one.
func choose(list []descriptor) (*descriptor, error) {
	for _, want := range []func(d *descriptor) bool{
		func(d *descriptor) bool { return strings.HasPrefix(d.Platform.Architecture, "wasm") },
		func(d *descriptor) bool { return d.Platform.OS == "linux" && d.Platform.Architecture == "amd64" },
		func(*descriptor) bool { return len(list) == 1 },
	} {
		for i := range list {
			if want(&list[i]) {
				if !isDigest(list[i].Digest) {
					return nil, errors.New("the index has an entry without a sha256 digest")
				}
				return &list[i], nil
			}
		}
	}
	return nil, fmt.Errorf("none of the %d images of the index is for wasm or for linux/amd64", len(list))
}

// module finds the module in an image's layers.
func (s *session) module(ctx context.Context, m *manifest) ([]byte, error) {
	if len(m.Layers) == 0 || len(m.Layers) > maxLayers {
		return nil, fmt.Errorf("an image of %d layers", len(m.Layers))
	}
	for i := range m.Layers {
		switch m.Layers[i].MediaType {
		case wasmLayer, wasmLayer2:
			code, err := s.blob(ctx, &m.Layers[i])
			if err == nil && !IsModule(code) {
				err = errors.New("the layer is no Wasm module")
			}
			return code, err
		}
	}
	last := &m.Layers[len(m.Layers)-1]
	switch last.MediaType {
	case dockerLayer, ociLayer, ociPlainLayer:
	default:
		return nil, fmt.Errorf("the last layer is of type %q, none of those that plugins come in (%s, %s, %s)",
			last.MediaType, wasmLayer, dockerLayer, ociLayer)
	}
	b, err := s.blob(ctx, last)
	if err != nil {
		return nil, err
	}
	if isGzip(b) {
		if b, err = gunzip(b, 2*s.c.o.MaxBytes); err != nil {
			return nil, err
		}
	}
	code, err := untar(bytes.NewReader(b), s.c.o.MaxBytes, func(name string) bool { return name == moduleFile })
	switch {
	case errors.Is(err, errNotFound):
		return nil, fmt.Errorf("there is no %s in the last layer", moduleFile)
	case err == nil && !IsModule(code):
		return nil, fmt.Errorf("%s is no Wasm module", moduleFile)
	}
	return code, err
}

// blob fetches a layer and verifies it.
func (s *session) blob(ctx context.Context, d *descriptor) ([]byte, error) {
	if !isDigest(d.Digest) {
		return nil, fmt.Errorf("a layer's digest is %q, not sha256", d.Digest)
	}
	if d.Size > s.c.o.MaxBytes {
		return nil, sizeError(s.c.o.MaxBytes)
	}
	b, _, err := s.get(ctx, "v2/"+s.ref.Repository+"/blobs/"+d.Digest, "", s.c.o.MaxBytes)
	if err == nil && digestOf(b) != d.Digest {
		err = errDigest
	}
	return b, err
}
