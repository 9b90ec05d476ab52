package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// allowance is a difference from Envoy that is intended. All that is given must match.
type allowance struct {
	Case   string `json:"case"`   // glob over group/case
	Line   string `json:"line"`   // regular expression over the printed difference
	Topic  string `json:"topic"`  // row of docs/compat.md, DIVERGES(topic) in the code
	Reason string `json:"reason"` // why

	line *regexp.Regexp
	used bool
}

func readAllowed(dir string) ([]*allowance, error) {
	file := filepath.Join(dir, "allowed.yaml")
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []*allowance
	if err := yaml.UnmarshalStrict(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for i, a := range list {
		if a.Case == "" || a.Line == "" || a.Topic == "" || a.Reason == "" {
			return nil, fmt.Errorf("%s: [%d]: case, line, topic and reason are all needed", file, i)
		}
		if a.line, err = regexp.Compile(a.Line); err != nil {
			return nil, fmt.Errorf("%s: [%d].line: %w", file, i, err)
		}
		if _, err := path.Match(a.Case, ""); err != nil {
			return nil, fmt.Errorf("%s: [%d].case: %w", file, i, err)
		}
	}
	return list, nil
}

// allowedBy returns the allowance for a difference in a case, or nil.
func allowedBy(list []*allowance, name string, d difference) *allowance {
	for _, a := range list {
		ok, err := path.Match(a.Case, name)
		// A glob's * stops at a slash: a lone * means all cases.
		if (ok && err == nil || a.Case == "*") && a.line.MatchString(d.String()) {
			a.used = true
			return a
		}
	}
	return nil
}

var (
	divergesPattern = regexp.MustCompile(`DIVERGES\(([^)]+)\)`)
	rowPattern      = regexp.MustCompile("(?m)^\\| *`([^`]+)` *\\|")
)

// checkTopics finds the topics of DIVERGES comments that docs/compat.md has no row for, and rows
// and allowances that no code stands behind.
func checkTopics(root string, allowed []*allowance) error {
	inCode, err := codeTopics(root)
	if err != nil {
		return err
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs", "compat.md"))
	if err != nil {
		return err
	}
	rows := map[string]bool{}
	for _, m := range rowPattern.FindAllStringSubmatch(string(doc), -1) {
		rows[m[1]] = true
	}
	var errs []error
	for topic, file := range inCode {
		if !rows[topic] {
			errs = append(errs, fmt.Errorf("%s: DIVERGES(%s) has no row in docs/compat.md", file, topic))
		}
	}
	for topic := range rows {
		if _, ok := inCode[topic]; !ok {
			errs = append(errs, fmt.Errorf("docs/compat.md: no DIVERGES(%s) in the code", topic))
		}
	}
	for _, a := range allowed {
		if !rows[a.Topic] {
			errs = append(errs, fmt.Errorf("allowed.yaml: topic %q has no row in docs/compat.md", a.Topic))
		}
	}
	return errors.Join(errs...)
}

// codeTopics maps each topic to a file that has it. The check's own sources name the marker without
// meaning it, and tests may quote it.
func codeTopics(root string) (map[string]string, error) {
	topics := map[string]string{}
	err := filepath.WalkDir(root, func(file string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && rel != "."
			if hidden || rel == filepath.Join("internal", "compat") || rel == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		ext := filepath.Ext(file)
		source := ext == ".go" || ext == ".c" || ext == ".h" || ext == ".proto"
		if !source || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, m := range divergesPattern.FindAllSubmatch(data, -1) {
			topics[string(m[1])] = rel
		}
		return nil
	})
	return topics, err
}
