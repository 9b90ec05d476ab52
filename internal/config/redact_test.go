package config

import (
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3" // of the secrets
)

// TestParse_Sensitive holds that what is wrong with a secret is told without it.
func TestParse_Sensitive(t *testing.T) {
	t.Parallel()
	for name, secret := range map[string]string{
		"not an object":  `{tls_certificate: {private_key: s3cret}}`,
		"not base64":     `{tls_certificate: {private_key: {inline_bytes: "s3cret!"}}}`,
		"a list":         `{tls_certificate: {password: {inline_string: [s3cret]}}}`,
		"nested":         `{generic_secret: {secret: {watched_directory: s3cret}}}`,
		"ticket keys":    `{session_ticket_keys: {keys: [s3cret]}}`,
		"unknown inside": `{tls_certificate: {password: {nope: s3cret}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			yaml := "static_resources: {secrets: [" + secret + "]}"
			_, err := Parse("x", YAML, []byte(yaml), &bootstrapv3.Bootstrap{}, RejectUnknown)
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the secret is in %q", err)
			}
		})
	}
}
