package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
)

// testCase is one case and its outcome.
type testCase struct {
	name    string // of its section and of itself
	failure string // "" if it passed
	skipped bool
}

// report has the cases in their order.
type report []testCase

// parse reads a JUnit report.
func parse(data []byte) (report, error) {
	var doc struct {
		Suites []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *string   `xml:"failure"`
				Error   *string   `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(printable(data), &doc); err != nil {
		return nil, err
	}
	var r report
	seen := map[string]int{}
	for _, s := range doc.Suites {
		for _, c := range s.Cases {
			name := c.Package + ": " + c.Name
			if seen[name]++; seen[name] > 1 {
				name = fmt.Sprintf("%s (%d)", name, seen[name])
			}
			t := testCase{name: name, skipped: c.Skipped != nil}
			switch {
			case c.Error != nil:
				t.failure = "error: " + *c.Error
			case c.Failure != nil:
				t.failure = "failure: " + *c.Failure
			}
			r = append(r, t)
		}
	}
	if len(r) == 0 {
		return nil, errors.New("report without cases")
	}
	return r, nil
}

// printable replaces what no XML may have: the tool writes debug data of frames as it came.
func printable(data []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' {
			return '?'
		}
		return r
	}, data)
}

func (c testCase) passed() bool { return c.failure == "" && !c.skipped }

// compare lists what differs. It is an error if a case passes there and does not here.
func compare(out io.Writer, theirs, ours report, verbose bool) error {
	byName := map[string]testCase{}
	for _, c := range ours {
		byName[c.name] = c
	}
	var worse, better, both int
	for _, want := range theirs {
		got, ok := byName[want.name]
		switch {
		case want.passed() && !ok:
			worse++
			fmt.Fprintf(out, "FAIL %s\n     was not run\n", want.name)
		case want.passed() && !got.passed():
			worse++
			fmt.Fprintf(out, "FAIL %s\n     %s\n", want.name, got.failure)
		case !want.passed() && got.passed():
			better++
			if verbose {
				fmt.Fprintf(out, "more %s\n", want.name)
			}
		case !want.passed():
			both++
			if verbose {
				fmt.Fprintf(out, "both %s\n     %s\n", want.name, got.failure)
			}
		}
	}
	fmt.Fprintf(out, "%d cases; only Envoy passes %d, only the sidecar %d, neither %d\n",
		len(theirs), worse, better, both)
	if worse > 0 {
		return fmt.Errorf("%d cases that Envoy passes fail", worse)
	}
	return nil
}
