package config

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLocate(t *testing.T) {
	t.Parallel()
	doc := `
admin:
  profilePath: x
static_resources:
  clusters:
  - name: a
  - name: b
    typed_extension_protocol_options:
      "a.b]\"":
        "@type": x
        type_url: y
        value:
          foo:
            bar: 1
`
	in := errors.Join(
		&Error{Path: "admin.profile_path", Err: errors.New("e1")},
		&Error{Path: "static_resources.clusters[1].lb_policy", Err: errors.New("e2")},
		&Error{Path: `static_resources.clusters[1].typed_extension_protocol_options["a.b]\""].foo.bar`, Err: errors.New("e3")},
		&Error{Path: "static_resources.clusters[7]", Err: errors.New("e4")},
		&Error{Path: "node", Err: errors.New("e5")},
		&Error{File: "other", Line: 3, Path: "admin", Err: errors.New("e6")},
		errors.New("e7"),
	)
	want := `f:3: admin.profile_path: e1
f:7: static_resources.clusters[1].lb_policy: e2
f:14: static_resources.clusters[1].typed_extension_protocol_options["a.b]\""].foo.bar: e3
f:5: static_resources.clusters[7]: e4
node: e5
other:3: admin: e6
e7`
	if diff := cmp.Diff(want, Locate("f", YAML, []byte(doc), in).Error()); diff != "" {
		t.Error(diff)
	}
	if err := Locate("f", YAML, []byte("{"), in); err.Error() != in.Error() {
		t.Errorf("got %v", err)
	}
	if err := Locate("f", YAML, []byte(doc), nil); err != nil {
		t.Errorf("got %v", err)
	}
}
