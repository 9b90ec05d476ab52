package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
)

// report gathers what was measured, prints it as it comes, and is what -json writes.
type report struct {
	Date    string     `json:"date"`
	Machine string     `json:"machine"`
	Short   bool       `json:"short"` // too short to be quoted
	Figures []figure   `json:"figures"`
	Tables  []table    `json:"tables"`
	Skipped []string   `json:"skipped,omitempty"`
	out     io.Writer  //
	mu      sync.Mutex // guards the lists
}

// figure is one number with a target.
type figure struct {
	Bench  string  `json:"bench"`
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Range  string  `json:"range,omitempty"`
	Unit   string  `json:"unit,omitempty"`
	Target float64 `json:"target"`
	// AtLeast turns the target into a lower bound.
	AtLeast bool `json:"at_least,omitempty"`
	Pass    bool `json:"pass"`
}

// table is all metrics of all subjects of a bench.
type table struct {
	Bench string                       `json:"bench"`
	Order []string                     `json:"order"`
	Rows  map[string]map[string]string `json:"rows"`
}

func newReport(out io.Writer, short bool) *report {
	return &report{
		Date: time.Now().UTC().Format("2006-01-02"), Machine: machine(), Short: short, out: out,
	}
}

// machine names the size of the machine, not which one it is.
func machine() string {
	text := fmt.Sprintf("%d cores", runtime.NumCPU())
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return text
	}
	var kb int64
	if _, err := fmt.Sscanf(string(data), "MemTotal: %d kB", &kb); err != nil {
		return text
	}
	return fmt.Sprintf("%s, %d GiB", text, (kb+1<<19)>>20)
}

func (r *report) begin(b *bench) {
	fmt.Fprintf(r.out, "\n== %s: %s\n", b.name, b.doc)
}

// atMost records a figure that must not be above target.
func (r *report) atMost(bench, name string, value float64, spread, unit string, target float64) {
	r.add(figure{
		Bench: bench, Name: name, Value: value, Range: spread, Unit: unit, Target: target,
		Pass: value <= target,
	})
}

// atLeast records a figure that must not be below target.
func (r *report) atLeast(bench, name string, value, target float64) {
	r.add(figure{
		Bench: bench, Name: name, Value: value, Target: target, AtLeast: true,
		Pass: value >= target,
	})
}

func (r *report) add(f figure) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Figures = append(r.Figures, f)
	word, relation := "PASS", "at most"
	if !f.Pass {
		word = "FAIL"
	}
	if f.AtLeast {
		relation = "at least"
	}
	text := number(f.Value)
	if f.Range != "" {
		text = f.Range
	}
	fmt.Fprintf(r.out, "%s %s: %s: %s %s (target: %s %s)\n", word, f.Bench, f.Name, text, f.Unit,
		relation, number(f.Target))
}

// note prints something that has no target.
func (r *report) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "     "+format+"\n", args...)
}

// skip records why a bench was not run.
func (r *report) skip(bench string, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Skipped = append(r.Skipped, bench+": "+why.Error())
	fmt.Fprintf(r.out, "SKIP %s: %v\n", bench, why)
}

// fail records a bench that broke: that is never a pass.
func (r *report) fail(bench string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Figures = append(r.Figures, figure{Bench: bench, Name: "ran: " + err.Error()})
	fmt.Fprintf(r.out, "FAIL %s: did not run: %v\n", bench, err)
}

// table prints the rows in the given order.
func (r *report) table(bench string, order []string, data rounds) {
	metrics := data.metrics()
	t := table{Bench: bench, Order: order, Rows: map[string]map[string]string{}}
	for _, subject := range order {
		cells := map[string]string{}
		var line []string
		for _, m := range metrics {
			if s := data.series(subject, m); len(s) > 0 {
				cells[m] = s.String()
				line = append(line, m+" "+s.String())
			}
		}
		t.Rows[subject] = cells
		r.note("%-16s %s", subject, strings.Join(line, " | "))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Tables = append(r.Tables, t)
}

func (r *report) failed() int {
	n := 0
	for _, f := range r.Figures {
		if !f.Pass {
			n++
		}
	}
	return n
}

func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
