package k8s

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// object is the part of the manifests that must fit together.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Args         []string
					Ports        []struct{ Name string }
					VolumeMounts []struct{ Name, MountPath string }
				}
				Volumes []struct {
					Name      string
					ConfigMap struct{ Name string }
				}
			}
		}
		Ports []struct{ TargetPort string }
	}
}

func manifests(t *testing.T) map[string]*object {
	t.Helper()
	text, err := os.ReadFile("deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*object{}
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		o := new(object)
		if err := yaml.Unmarshal(doc, o); err != nil {
			t.Fatal(err)
		}
		out[o.Kind] = o
	}
	for _, kind := range []string{"ConfigMap", "Deployment", "Service"} {
		if out[kind] == nil {
			t.Fatalf("no %s", kind)
		}
	}
	return out
}

// TestDeployment_Fits: the parts of the manifest name each other.
func TestDeployment_Fits(t *testing.T) {
	t.Parallel()
	all := manifests(t)
	pod := all["Deployment"].Spec.Template.Spec
	c := pod.Containers[0]
	if got, want := pod.Volumes[0].ConfigMap.Name, all["ConfigMap"].Metadata.Name; got != want {
		t.Errorf("the volume is of ConfigMap %q, not of %q", got, want)
	}
	if c.VolumeMounts[0].Name != pod.Volumes[0].Name {
		t.Errorf("mounts %q, has %q", c.VolumeMounts[0].Name, pod.Volumes[0].Name)
	}
	config := c.Args[slices.Index(c.Args, "-c")+1]
	if filepath.Dir(config) != c.VolumeMounts[0].MountPath {
		t.Errorf("-c %s is not in %s", config, c.VolumeMounts[0].MountPath)
	}
	if all["ConfigMap"].Data[filepath.Base(config)] == "" {
		t.Errorf("-c %s is not in the ConfigMap", config)
	}
	if got, want := all["Service"].Spec.Ports[0].TargetPort, c.Ports[0].Name; got != want {
		t.Errorf("the service is for port %q, the container has %q", got, want)
	}
}

// TestBootstraps_Valid gives the shipped configurations to the program itself.
func TestBootstraps_Valid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary := filepath.Join(dir, "sidecar")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/sidecar")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	configMap := filepath.Join(dir, "bootstrap.yaml")
	text := manifests(t)["ConfigMap"].Data["bootstrap.yaml"]
	if err := os.WriteFile(configMap, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{configMap, "deploy/example/sidecar.yaml"} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), binary, "--mode", "validate", "-c", file)
			cmd.Dir = root
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "OK") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
