package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"

	"sidecar/internal/compat/corpus"
)

// Configs are compared too: those of testdata/compat/validate go to both proxies with --mode
// validate, and both must take them or both refuse them. What they say about it is their own.

// verdict is what a proxy said to a config.
type verdict struct {
	accepted bool
	output   string
}

const validateWithin = 30 * time.Second

// validate plays the chosen configs and returns a result for each.
func (s *session) validate(ctx context.Context) ([]caseResult, error) {
	configs, err := corpus.LoadConfigs(filepath.Join(s.dir, "validate"))
	if err != nil {
		return nil, err
	}
	recorded, err := readVerdicts(s.dir)
	if err != nil {
		return nil, err
	}
	var out []caseResult
	for _, c := range configs {
		name := "validate/" + c.Name
		if !s.run.MatchString(name) {
			continue
		}
		got, err := s.ask(ctx, *s.got, c)
		if err != nil {
			out = append(out, caseResult{Case: name, Error: err.Error()})
			continue
		}
		if s.record {
			recorded[c.Name] = got.accepted
			out = append(out, caseResult{Case: name})
			continue
		}
		out = append(out, s.judgeVerdict(ctx, c, name, got, recorded))
	}
	if !s.record {
		return out, nil
	}
	keep := map[string]bool{}
	for _, c := range configs {
		if accepted, ok := recorded[c.Name]; ok {
			keep[c.Name] = accepted
		}
	}
	return out, writeVerdicts(s.dir, keep)
}

func (s *session) judgeVerdict(ctx context.Context, c *corpus.Group, name string, got verdict,
	recorded map[string]bool,
) caseResult {
	r := caseResult{Case: name}
	want, ok := recorded[c.Name]
	if s.want != nil {
		v, err := s.ask(ctx, *s.want, c)
		if err != nil {
			r.Error = err.Error()
			return r
		}
		want, ok = v.accepted, true
	}
	if !ok {
		r.Error = "not recorded: run compat -record"
		return r
	}
	if want == got.accepted {
		return r
	}
	s.sort(&r, difference{"verdict", signWant, word(want)})
	s.sort(&r, difference{"verdict", signGot, word(got.accepted) + ": " + got.output})
	return r
}

func word(accepted bool) string {
	if accepted {
		return "accepted"
	}
	return "refused"
}

// ask runs the proxy with --mode validate.
func (s *session) ask(ctx context.Context, p proxy, c *corpus.Group) (verdict, error) {
	dir, err := os.MkdirTemp("", "compat-")
	if err != nil {
		return verdict{}, err
	}
	defer os.RemoveAll(dir)
	table := corpus.Expander{"dir": dir, "dead": "9", "admin": "0", "listener." + corpus.Fence: "0"}
	for _, l := range c.Listeners {
		table["listener."+l.Name] = "0"
	}
	for _, name := range c.UpstreamNames() {
		table["up."+name] = "80"
	}
	config, err := c.Build(table)
	if err != nil {
		return verdict{}, err
	}
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, config, 0o644); err != nil {
		return verdict{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, validateWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.binary, append([]string{
		"--mode", "validate", "-c", path, "--log-level", "error", "--disable-hot-restart",
	}, c.Args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return verdict{accepted: true, output: firstLine(out)}, nil
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		return verdict{output: firstLine(out)}, nil
	}
	return verdict{}, fmt.Errorf("%s: %w: %s", p.name, err, firstLine(out))
}

func firstLine(out []byte) string {
	const width = 400
	out = bytes.ReplaceAll(bytes.TrimSpace(out), []byte("\n"), []byte(" / "))
	return string(out[:min(len(out), width)])
}

func verdictPath(dir string) string { return filepath.Join(dir, "golden", "validate.verdicts") }

func readVerdicts(dir string) (map[string]bool, error) {
	out := map[string]bool{}
	data, err := os.ReadFile(verdictPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	return out, yaml.Unmarshal(data, &out)
}

func writeVerdicts(dir string, verdicts map[string]bool) error {
	data, err := yaml.Marshal(verdicts)
	if err != nil {
		return err
	}
	return os.WriteFile(verdictPath(dir), data, 0o644)
}
