package fetch

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Scheme begins the addresses of images.
const Scheme = "oci://"

// Reference is the address of an image.
type Reference struct {
	// Host is the registry's, with a port if it has one of its own.
	Host, Repository string
	// Tag is "latest" if the address names neither tag nor digest; empty with a digest.
	Tag string
	// Digest pins the manifest: "sha256:" and 64 digits.
	Digest string
}

// The registry of addresses that name none.
const (
	dockerHost     = "index.docker.io"
	defaultTag     = "latest"
	sha256Prefix   = "sha256:"
	maxReference   = 1024
	repositoryRune = "abcdefghijklmnopqrstuvwxyz0123456789._-/"
)

// ParseReference reads an address such as oci://host/repository:tag@sha256:... as the tools of images do.
func ParseReference(address string) (Reference, error) {
	rest, ok := strings.CutPrefix(address, Scheme)
	bad := func(why string) (Reference, error) {
		return Reference{}, fmt.Errorf("%q is no address of an image: %s", address, why)
	}
	if !ok || len(address) > maxReference {
		return bad("it is oci://host/repository:tag, or @sha256:... for the tag")
	}
	r := Reference{}
	if rest, r.Digest, ok = strings.Cut(rest, "@"); ok && !isDigest(r.Digest) {
		return bad("the digest is sha256: and 64 digits")
	}
	host, repository, ok := strings.Cut(rest, "/")
	if !ok || (!strings.ContainsAny(host, ".:[") && host != "localhost") {
		host, repository = dockerHost, rest
	}
	if host == "docker.io" {
		host = dockerHost
	}
	if i := strings.LastIndexByte(repository, ':'); i >= 0 {
		repository, r.Tag = repository[:i], repository[i+1:]
		if !isTag(r.Tag) {
			return bad("the tag is of letters, digits, dots, dashes and underscores")
		}
	}
	if host == dockerHost && !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	r.Host, r.Repository = host, repository
	if repository == "" || strings.Trim(repository, repositoryRune) != "" || strings.Contains("/"+repository+"/", "//") ||
		strings.Contains("/"+repository+"/", "/../") {
		return bad("the repository is of lower-case letters, digits, dots, dashes, underscores and slashes")
	}
	if u, err := url.Parse("https://" + host + "/"); err != nil || u.Host != host || u.Hostname() == "" {
		return bad("the host is not one")
	}
	if r.Digest != "" {
		r.Tag = "" // The digest says all.
	} else if r.Tag == "" {
		r.Tag = defaultTag
	}
	return r, nil
}

func isTag(s string) bool {
	return s != "" && len(s) <= 128 && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

func isDigest(s string) bool {
	h, ok := strings.CutPrefix(s, sha256Prefix)
	if !ok || len(h) != 2*sha256.Size || h != strings.ToLower(h) {
		return false
	}
	_, err := hex.DecodeString(h)
	return err == nil
}

func digestOf(b []byte) string {
	g := sha256.Sum256(b)
	return sha256Prefix + hex.EncodeToString(g[:])
}

var errDigest = errors.New("its content is not what its digest says")

// name is what the registry's API calls the manifest.
func (r Reference) name() string {
	if r.Digest != "" {
		return r.Digest
	}
	return r.Tag
}
