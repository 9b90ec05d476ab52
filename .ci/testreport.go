// Command testreport reads what `go test -json` writes. It shows the output of what failed, then
// the tests that were skipped with their reasons, then a line of totals. It fails when a test
// failed, when nothing ran, or when a test was skipped that the file named by its argument doesn't
// allow.
//
// That file holds one test a line, "package TestName", and comments after #. With -short it
// lists all that was skipped and allows it: the run without -short is the judge.
//
// With -totals FILE the totals are added to that file; -sum FILE only prints the sum of them, alone on
// its line. -skip "check lint" -reason TEXT counts a step that is no test as skipped, and judges it by
// the same file.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type report struct {
	allowed                 map[string]bool
	short                   bool
	output                  map[string][]string // of a test or a package, until it ends
	passed, failed, skipped int
	packages, bad           int
	skips                   []string
	forbidden               int
}

func main() {
	r := &report{allowed: map[string]bool{}, output: map[string][]string{}}
	totals := flag.String("totals", "", "file that the totals are added to")
	sum := flag.String("sum", "", "only print the sum of the totals in a file")
	step := flag.String("skip", "", "only count this step, two words, as skipped")
	reason := flag.String("reason", "", "why -skip")
	flag.BoolVar(&r.short, "short", false, "the tests run with -short")
	flag.Parse()
	if *sum != "" {
		exitOn(printSum(*sum))
		return
	}
	start := time.Now()
	if *step != "" {
		exitOn(r.run(flag.Args(), strings.NewReader("")))
		pkg, name, _ := strings.Cut(*step, " ")
		r.skip(pkg, name, *reason)
	} else {
		exitOn(r.run(flag.Args(), os.Stdin))
	}
	for _, s := range r.skips {
		fmt.Println(s)
	}
	fmt.Printf("%d passed, %d failed, %d skipped, in %d packages and %.0f s\n",
		r.passed, r.failed, r.skipped, r.packages, time.Since(start).Seconds())
	if *totals != "" {
		exitOn(r.add(*totals))
	}
	if r.failed > 0 || r.bad > 0 || r.forbidden > 0 || r.passed == 0 && *step == "" {
		os.Exit(1)
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
}

// add counts a package that failed without a failed test (it didn't build, it crashed) as one.
func (r *report) add(name string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, r.passed, max(r.failed, r.bad), r.skipped)
	return errors.Join(err, f.Close())
}

func printSum(name string) error {
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var passed, failed, skipped int
	for line := range strings.Lines(string(data)) {
		var p, f, s int
		if _, err := fmt.Sscan(line, &p, &f, &s); err != nil {
			return err
		}
		passed, failed, skipped = passed+p, failed+f, skipped+s
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return nil
}

func (r *report) run(args []string, in io.Reader) error {
	for _, name := range args {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			line, _, _ = strings.Cut(line, "#")
			if fields := strings.Fields(line); len(fields) == 2 {
				r.allowed[fields[0]+" "+fields[1]] = true
			}
		}
	}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Print(string(line)) // not from a test: the go command itself
			} else {
				r.event(&e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) event(e *event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		fmt.Print(e.Output)
	case "pass", "fail", "skip":
		r.end(e, key)
		delete(r.output, key)
	}
}

func (r *report) end(e *event, key string) {
	text := strings.Join(r.output[key], "")
	if e.Test == "" {
		r.packages++
		if e.Action == "fail" {
			r.bad++
			fmt.Printf("%sFAIL %s\n", text, e.Package)
		} else if e.Action == "pass" {
			fmt.Printf("ok   %s %.1fs\n", e.Package, e.Elapsed)
		}
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		fmt.Print(text)
	case "skip":
		r.skip(e.Package, e.Test, reason(text))
	}
}

// skip judges what was skipped. A subtest is allowed with its test.
func (r *report) skip(pkg, test, why string) {
	r.skipped++
	top, _, _ := strings.Cut(test, "/")
	verdict := "skipped"
	if !r.short && !r.allowed[pkg+" "+test] && !r.allowed[pkg+" "+top] {
		verdict = "SKIPPED, which .ci/allowed-skips doesn't allow"
		r.forbidden++
	}
	r.skips = append(r.skips, fmt.Sprintf("%s: %s %s: %s", verdict, pkg, test, why))
}

// reason is what the test said, without the lines of the test runner.
func reason(text string) string {
	var said []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, "; ")
}
