package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// numbers are left out when lines are counted: which connection or request it was, and how much.
var numbers = regexp.MustCompile(`\b[0-9]+\b`)

// printTop counts differing lines over all cases: one cause shows up in many of them.
func (s *session) printTop() {
	if s.top <= 0 {
		return
	}
	count := map[string]int{}
	example := map[string]string{}
	for _, r := range s.report.Results {
		seen := map[string]bool{}
		for _, d := range r.Differences {
			key := d.Sign + " " + numbers.ReplaceAllString(d.Slot+": "+d.Text, "N")
			if !seen[key] {
				seen[key] = true
				count[key]++
				example[key] = r.Case
			}
		}
	}
	keys := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	})
	for _, key := range keys[:min(s.top, len(keys))] {
		fmt.Printf("%5d %.150s (%s)\n", count[key], key, example[key])
	}
}
