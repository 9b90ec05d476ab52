package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"

	"sigs.k8s.io/yaml"

	"sidecar/internal/compat/corpus"
)

// session plays groups and gathers what differs.
type session struct {
	*options

	want, got *proxy // nil: the records
	allowed   []*allowance

	mu     sync.Mutex // guards below
	report report
}

// report is the whole result; it is what -json writes.
type report struct {
	Cases     int          `json:"cases"`
	Equal     int          `json:"equal"`
	Allowed   int          `json:"allowed"` // differ only as allowed.yaml says
	Different int          `json:"different"`
	Failed    int          `json:"failed"` // could not be played
	Results   []caseResult `json:"results"`
}

type caseResult struct {
	Case        string       `json:"case"`
	Error       string       `json:"error,omitempty"`
	Unplayed    int          `json:"unplayed,omitempty"` // cases of a group that didn't start
	Differences []difference `json:"differences,omitempty"`
	Allowed     []string     `json:"allowed,omitempty"`
}

func (s *session) playAll(ctx context.Context, groups []*corpus.Group) (int, error) {
	results := make([][]caseResult, len(groups))
	errs := make([]error, len(groups))
	slots := make(chan struct{}, max(s.jobs, 1))
	var wg sync.WaitGroup
	for i, g := range groups {
		if s.chosen(g) == 0 {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			results[i], errs[i] = s.playGroup(ctx, g)
		})
	}
	wg.Wait()
	for i := range groups {
		for _, r := range results[i] {
			s.count(r)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return 2, err
	}
	verdicts, err := s.validate(ctx)
	if err != nil {
		return 2, err
	}
	for _, r := range verdicts {
		s.count(r)
	}
	s.summary()
	if s.jsonPath != "" {
		data, err := json.MarshalIndent(s.report, "", "  ")
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(s.jsonPath, data, 0o644); err != nil {
			return 0, err
		}
	}
	if s.report.Different+s.report.Failed > 0 {
		return 1, nil
	}
	return 0, nil
}

func (s *session) chosen(g *corpus.Group) int {
	n := 0
	for i := range g.Cases {
		if s.run.MatchString(g.Describe(&g.Cases[i])) {
			n++
		}
	}
	return n
}

// playGroup plays one group on both sides; cases that differ are played again, because a busy
// machine can make either side late. A difference that is real comes each time.
func (s *session) playGroup(ctx context.Context, g *corpus.Group) ([]caseResult, error) {
	wants, err := s.wants(ctx, g, s.selects(g, nil))
	if err != nil {
		return s.unplayed(ctx, g, err)
	}
	gots, err := s.gots(ctx, g, s.selects(g, nil))
	if err != nil {
		return s.unplayed(ctx, g, err)
	}
	if s.record {
		return s.recordGroup(ctx, g, gots)
	}
	results := s.judge(g, wants, gots)
	for range s.retries {
		again := map[string]bool{}
		for name, r := range results {
			if r.Error != "" || len(r.Differences) > 0 {
				again[name] = true
			}
		}
		if len(again) == 0 {
			break
		}
		if wants, err = s.wants(ctx, g, s.selects(g, again)); err != nil {
			return nil, err
		}
		if gots, err = s.gots(ctx, g, s.selects(g, again)); err != nil {
			return nil, err
		}
		maps.Copy(results, s.judge(g, wants, gots))
	}
	var out []caseResult
	for i := range g.Cases {
		if r, ok := results[g.Cases[i].Name]; ok {
			out = append(out, r)
		}
	}
	return out, nil
}

func (s *session) selects(g *corpus.Group, only map[string]bool) func(*corpus.Case) bool {
	return func(c *corpus.Case) bool {
		return s.run.MatchString(g.Describe(c)) && (only == nil || only[c.Name])
	}
}

func (s *session) wants(ctx context.Context, g *corpus.Group, chosen func(*corpus.Case) bool,
) (map[string]outcome, error) {
	if s.want != nil {
		return runGroup(ctx, *s.want, g, chosen)
	}
	records, err := readGolden(s.dir, g.Name)
	if err != nil {
		return nil, err
	}
	out := map[string]outcome{}
	for i := range g.Cases {
		if c := &g.Cases[i]; chosen(c) {
			obs := records[c.Name]
			out[c.Name] = outcome{obs: obs}
			if obs == nil {
				out[c.Name] = outcome{err: errors.New("not recorded: run compat -record")}
			}
		}
	}
	return out, nil
}

func (s *session) gots(ctx context.Context, g *corpus.Group, chosen func(*corpus.Case) bool,
) (map[string]outcome, error) {
	return runGroup(ctx, *s.got, g, chosen)
}

// unplayed is the result for a group whose config a proxy doesn't take: the other groups still
// tell something.
func (s *session) unplayed(ctx context.Context, g *corpus.Group, err error) ([]caseResult, error) {
	if ctx.Err() != nil {
		return nil, err
	}
	return []caseResult{{Case: g.Name + "/*", Unplayed: s.chosen(g), Error: err.Error()}}, nil
}

func (s *session) judge(g *corpus.Group, wants, gots map[string]outcome) map[string]caseResult {
	out := map[string]caseResult{}
	for i := range g.Cases {
		c := &g.Cases[i]
		want, ok := wants[c.Name]
		if !ok {
			continue
		}
		got, ok := gots[c.Name]
		if !ok {
			got.err = errors.New("not played: the proxy had died")
		}
		r := caseResult{Case: g.Describe(c)}
		if err := errors.Join(prefixed("envoy", want.err), prefixed(s.got.name, got.err)); err != nil {
			r.Error = err.Error()
			out[c.Name] = r
			continue
		}
		for _, d := range compare(want.obs, got.obs) {
			s.sort(&r, d)
		}
		if s.print {
			s.show(r.Case, want.obs)
		}
		out[c.Name] = r
	}
	return out
}

func prefixed(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// sort puts a difference where it belongs: dropped, allowed, or counted.
func (s *session) sort(r *caseResult, d difference) {
	kind := d.Slot
	for i, c := range kind {
		if c == ' ' {
			kind = kind[:i]
			break
		}
	}
	if s.ignore[kind] || d.Sign == signOrder && !s.order {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := allowedBy(s.allowed, r.Case, d); a != nil {
		r.Allowed = append(r.Allowed, a.Topic)
		return
	}
	r.Differences = append(r.Differences, d)
}

func (s *session) show(name string, o *observation) {
	data, err := yaml.Marshal(o)
	if err != nil {
		data = []byte(err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("--- %s\n%s", name, data)
}

// recordGroup plays each case until it comes out the same twice running, and records that.
func (s *session) recordGroup(ctx context.Context, g *corpus.Group, first map[string]outcome,
) ([]caseResult, error) {
	keep := golden{}
	last := first
	results := map[string]caseResult{}
	for range 1 + s.retries {
		again := map[string]bool{}
		for name := range last {
			again[name] = true
		}
		next, err := s.gots(ctx, g, s.selects(g, again))
		if err != nil {
			return s.unplayed(ctx, g, err)
		}
		for name := range again {
			r := s.agree(g.Name+"/"+name, last[name], next[name])
			results[name] = r
			if r.Error == "" && len(r.Differences) == 0 {
				keep[name] = next[name].obs
				delete(next, name)
			}
		}
		if last = next; len(last) == 0 {
			break
		}
	}
	var out []caseResult
	for i := range g.Cases {
		if r, ok := results[g.Cases[i].Name]; ok {
			out = append(out, r)
		}
	}
	return out, writeGolden(s.dir, g, keep)
}

// agree compares two plays of the same case on the same proxy.
func (s *session) agree(name string, a, b outcome) caseResult {
	r := caseResult{Case: name}
	if err := errors.Join(a.err, b.err); err != nil {
		r.Error = err.Error()
		return r
	}
	if a.obs == nil || b.obs == nil {
		r.Error = "not played: the proxy had died"
		return r
	}
	r.Differences = compare(a.obs, b.obs)
	if s.print {
		s.show(name, b.obs)
	}
	return r
}

func (s *session) count(r caseResult) {
	s.report.Cases += max(r.Unplayed, 1)
	s.report.Results = append(s.report.Results, r)
	switch {
	case r.Unplayed > 0:
		s.report.Failed += r.Unplayed
		fmt.Printf("FAIL %s: %d cases\n    %s\n", r.Case, r.Unplayed, r.Error)
	case r.Error != "":
		s.report.Failed++
		fmt.Printf("FAIL %s\n    %s\n", r.Case, r.Error)
	case len(r.Differences) > 0:
		s.report.Different++
		fmt.Printf("DIFF %s\n", r.Case)
		for _, d := range r.Differences {
			fmt.Printf("    %s\n", d)
		}
	case len(r.Allowed) > 0:
		s.report.Allowed++
	default:
		s.report.Equal++
	}
}

func (s *session) summary() {
	r := &s.report
	fmt.Printf("compat: %d cases: %d equal, %d differ as allowed, %d differ, %d could not be played\n",
		r.Cases, r.Equal, r.Allowed, r.Different, r.Failed)
	s.printTop()
	if s.run.String() == "" {
		for _, a := range s.allowed {
			if !a.used {
				fmt.Printf("compat: allowed.yaml: %s %q explains nothing any more\n", a.Case, a.Line)
			}
		}
	}
}
