package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"sidecar/internal/compat/corpus"
)

// golden is what Envoy did in the cases of a group, for where no Envoy is at hand.
type golden map[string]*observation

func goldenPath(dir, group string) string { return filepath.Join(dir, "golden", group+".yaml") }

func readGolden(dir, group string) (golden, error) {
	data, err := os.ReadFile(goldenPath(dir, group))
	if errors.Is(err, os.ErrNotExist) {
		return golden{}, nil
	}
	if err != nil {
		return nil, err
	}
	g := golden{}
	if err := yaml.UnmarshalStrict(data, &g); err != nil {
		return nil, fmt.Errorf("%s: %w", goldenPath(dir, group), err)
	}
	return g, nil
}

// writeGolden replaces the recorded observations of the cases that were played; it drops those of
// cases that are no more.
func writeGolden(dir string, group *corpus.Group, played golden) error {
	g, err := readGolden(dir, group.Name)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for i := range group.Cases {
		known[group.Cases[i].Name] = true
	}
	for name := range g {
		if !known[name] {
			delete(g, name)
		}
	}
	maps.Copy(g, played)
	data, err := yaml.Marshal(g)
	if err != nil {
		return err
	}
	path := goldenPath(dir, group.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
