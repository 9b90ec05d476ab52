package server_test

import (
	"strings"
	"testing"

	"sidecar/internal/server"
)

// TestBootstrap_Secrets holds that secrets of the bootstrap are checked, are shown without what is
// secret, and are in no log.
func TestBootstrap_Secrets(t *testing.T) {
	t.Run("bad", func(t *testing.T) {
		got := runFails(t, func(o *server.Options) {
			o.ConfigYAML = "static_resources:\n  secrets:\n  - name: a\n    tls_certificate:\n" +
				"      certificate_chain: {inline_string: s3cret}\n      private_key: {inline_string: s3cret}\n"
		})
		const want = "--config-yaml:5: static_resources.secrets[0].tls_certificate.certificate_chain: "
		if len(got) != 1 || !strings.HasPrefix(got[0], want) || strings.Contains(got[0], "s3cret") {
			t.Errorf("got %q, want %q and more", got, want)
		}
	})
	t.Run("shown", func(t *testing.T) {
		p := live(t, "static_resources: {secrets: [{name: g, generic_secret: {secret: {inline_string: s3cret}}}]}\n")
		dump := p.adminGet("/config_dump")
		if n := strings.Count(dump, `"inline_string": "[redacted]"`); n != 2 { // bootstrap and secrets
			t.Errorf("%d redacted texts in %s", n, dump)
		}
		if strings.Contains(dump+p.logs.String(), "s3cret") {
			t.Error("the secret is shown")
		}
	})
}
