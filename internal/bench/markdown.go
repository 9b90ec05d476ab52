package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Between these lines of a document the results stand.
const (
	resultsBegin = "<!-- results: written by go run ./internal/bench -markdown -->"
	resultsEnd   = "<!-- end of results -->"
)

// updateDocument replaces the results in a Markdown file.
func (r *report) updateDocument(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(data), resultsBegin)
	_, after, okEnd := strings.Cut(rest, resultsEnd)
	if !ok || !okEnd {
		return fmt.Errorf("%s: no lines %q and %q", path, resultsBegin, resultsEnd)
	}
	text := before + resultsBegin + "\n" + r.markdown() + resultsEnd + after
	return os.WriteFile(path, []byte(text), 0o644)
}

// markdown is the figures as one table, then what each proxy did.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s, %s.", r.Machine, r.Date)
	if r.Short {
		b.WriteString(" Short rounds: not to be quoted.")
	}
	b.WriteString("\n\n| Bench | Figure | Measured | Target | |\n|---|---|---|---|---|\n")
	for _, f := range r.Figures {
		value, relation, verdict := number(f.Value), "≤", "missed"
		if f.Range != "" {
			value = f.Range
		}
		if f.AtLeast {
			relation = "≥"
		}
		if f.Pass {
			verdict = "held"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", f.Bench, f.Name,
			strings.TrimSpace(value+" "+f.Unit),
			strings.TrimSpace(relation+" "+number(f.Target)+" "+f.Unit), verdict)
	}
	for _, t := range r.Tables {
		r.markdownTable(&b, &t)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "\nSkipped: %s\n", s)
	}
	b.WriteString("\n")
	return b.String()
}

func (r *report) markdownTable(b *strings.Builder, t *table) {
	var metrics []string
	for _, cells := range t.Rows {
		for m := range cells {
			if !slices.Contains(metrics, m) {
				metrics = append(metrics, m)
			}
		}
	}
	slices.Sort(metrics)
	fmt.Fprintf(b, "\n%s:\n\n| |", t.Bench)
	for _, m := range metrics {
		fmt.Fprintf(b, " %s |", m)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(metrics)) + "\n")
	for _, name := range t.Order {
		fmt.Fprintf(b, "| %s |", name)
		for _, m := range metrics {
			fmt.Fprintf(b, " %s |", t.Rows[name][m])
		}
		b.WriteString("\n")
	}
}
