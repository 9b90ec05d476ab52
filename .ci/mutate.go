// Command mutate breaks one guard after another, without touching the tree, and runs the tests that
// are there for it: a guard that can be broken unnoticed is none.
//
// The file named by its argument holds a block for each guard, divided by empty lines:
//
//	file: internal/config/yaml.go
//	old:  if c.aliased++; c.aliased > maxAliasNodes {
//	new:  if false {
//	test: ./internal/config
//
// old must occur exactly once; new takes its place. Lines that begin with # are comments.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

type mutation struct{ file, old, new, test string }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: mutate <file>")
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	survived := 0
	mutations, err := parse(string(data))
	if err != nil {
		return err
	}
	for _, m := range mutations {
		killed, err := m.try()
		if err != nil {
			return fmt.Errorf("%s: %w", m.file, err)
		}
		verdict := "noticed "
		if !killed {
			verdict = "SURVIVED"
			survived++
		}
		fmt.Printf("%s %s: %s -> %s\n", verdict, m.file, m.old, m.new)
	}
	if survived > 0 || len(mutations) == 0 {
		return fmt.Errorf("%d of %d broken guards were not noticed", survived, len(mutations))
	}
	return nil
}

func parse(text string) ([]mutation, error) {
	var out []mutation
	for block := range strings.SplitSeq(text, "\n\n") {
		var m mutation
		fields := map[string]*string{"file": &m.file, "old": &m.old, "new": &m.new, "test": &m.test}
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			key, value, _ := strings.Cut(line, ":")
			at, ok := fields[key]
			if !ok {
				return nil, fmt.Errorf("unknown line %q", line)
			}
			*at = strings.TrimSpace(value)
		}
		if m == (mutation{}) {
			continue
		}
		if m.file == "" || m.old == "" || m.test == "" {
			return nil, fmt.Errorf("incomplete block:\n%s", block)
		}
		out = append(out, m)
	}
	return out, nil
}

// try tells whether a test fails with the mutation in place, which the go command is given as an
// overlay.
func (m *mutation) try() (killed bool, err error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return false, err
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return false, fmt.Errorf("%q is there %d times", m.old, n)
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	mutated := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(mutated, bytes.Replace(source, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
		return false, err
	}
	original, err := filepath.Abs(m.file)
	if err != nil {
		return false, err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: mutated}})
	if err != nil {
		return false, err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return false, err
	}
	if out, err := exec.Command("go", "vet", "-overlay", list, m.test).CombinedOutput(); err != nil {
		return false, fmt.Errorf("the mutation doesn't compile: %s", out)
	}
	return exec.Command("go", "test", "-count=1", "-overlay", list, m.test).Run() != nil, nil
}
