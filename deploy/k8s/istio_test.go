package k8s

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// documents reads all documents of a file, strictly: a key given twice is an error.
func documents(t *testing.T, path string) (out []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for doc := range bytes.SplitSeq(append([]byte("\n"), text...), []byte("\n---\n")) {
		m := map[string]any{}
		if err := yaml.UnmarshalStrict(doc, &m); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		out = append(out, m)
	}
	return out
}

// at walks maps and lists down; nil if there is nothing.
func at(v any, path ...any) any {
	for _, p := range path {
		switch key := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[key]
		case int:
			l, _ := v.([]any)
			if key >= len(l) {
				return nil
			}
			v = l[key]
		}
	}
	return v
}

// TestManifests_Objects: every manifest is of objects that have a kind and a name.
func TestManifests_Objects(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" || filepath.Base(path) == "values.yaml" {
			return err
		}
		for i, m := range documents(t, path) {
			kind, _ := m["kind"].(string)
			if m["apiVersion"] == nil || kind == "" {
				t.Errorf("%s, document %d: no apiVersion or kind", path, i)
			}
			if kind != "Kustomization" && at(m, "metadata", "name") == nil {
				t.Errorf("%s, document %d: no name", path, i)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestKustomizations_Files: what they name is there.
func TestKustomizations_Files(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"kustomization.yaml", "overlays/intercepted/kustomization.yaml"} {
		k := documents(t, path)[0]
		resources, _ := k["resources"].([]any)
		patches, _ := k["patches"].([]any)
		for _, p := range patches {
			resources = append(resources, at(p, "path"))
		}
		if len(resources) == 0 {
			t.Errorf("%s: no resources", path)
		}
		for _, r := range resources {
			name, _ := r.(string)
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), name)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	patch := documents(t, "overlays/intercepted/intercept.yaml")[0]
	if at(patch, "metadata", "name") != manifests(t)["Deployment"].Metadata.Name {
		t.Error("the patch is of no Deployment")
	}
	command, _ := at(patch, "spec", "template", "spec", "initContainers", 0, "command").([]any)
	if !slices.Contains(command, any("10000")) {
		t.Error("what comes in is not redirected to the proxy's port")
	}
}

// TestIstio_Injection: the pods ask for the template that there is, the template is of the container
// that Istio injects, and the agent starts the program that is in the image.
func TestIstio_Injection(t *testing.T) {
	t.Parallel()
	values := documents(t, "istio/values.yaml")[0]
	templates, _ := at(values, "sidecarInjectorWebhook", "templates").(map[string]any)
	workload := documents(t, "istio/workload.yaml")[0]
	annotations := at(workload, "spec", "template", "metadata", "annotations")
	asked, _ := at(annotations, "inject.istio.io/templates").(string)
	names := strings.Split(asked, ",")
	if len(names) != 2 || names[0] != "sidecar" || templates[names[1]] == nil {
		t.Fatalf("templates %q, there are %v", names, templates)
	}
	text, _ := templates[names[1]].(string)
	var pod map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &pod); err != nil {
		t.Fatal(err)
	}
	if at(pod, "spec", "containers", 0, "name") != "istio-proxy" || at(pod, "spec", "containers", 0, "image") == nil {
		t.Errorf("the template is no image of istio-proxy: %v", pod)
	}
	config, _ := at(annotations, "proxy.istio.io/config").(string)
	var proxy struct {
		BinaryPath string `json:"binaryPath"`
	}
	if err := yaml.UnmarshalStrict([]byte(config), &proxy); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile("istio/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	if proxy.BinaryPath == "" || !strings.Contains(string(image), " "+proxy.BinaryPath+"\n") {
		t.Errorf("the image has no %q", proxy.BinaryPath)
	}
	plugin := documents(t, "istio/wasmplugin.yaml")[0]
	if at(plugin, "spec", "selector", "matchLabels", "app") != at(workload, "spec", "selector", "matchLabels", "app") {
		t.Error("the plugin is for other pods")
	}
}
