package wasmcli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// scenario is what a plugin is put through.
type scenario struct {
	Plugin   pluginSpec          `json:"plugin"`
	Clusters map[string][]answer `json:"clusters"`
	Streams  []exchange          `json:"streams"`
	// Together runs the streams at once: first the heads of all, then the first chunk of each, and so
	// on. Else each begins when the one before it has ended.
	Together bool `json:"together"`
	// Wait goes on that long after the last stream: for ticks.
	Wait duration `json:"wait"`
	// Timeout is how long a stream may be paused.
	Timeout duration `json:"timeout"`
}

// pluginSpec is what of a plugin's configuration makes a difference here.
type pluginSpec struct {
	Name             string            `json:"name"`
	RootID           string            `json:"root_id"`
	VMID             string            `json:"vm_id"`
	Configuration    string            `json:"configuration"`
	VMConfiguration  string            `json:"vm_configuration"`
	Environment      map[string]string `json:"environment"`
	Capabilities     []string          `json:"allowed_capabilities"`
	FailurePolicy    string            `json:"failure_policy"`
	AllowHeadersStop bool              `json:"allow_on_headers_stop_iteration"`
	Deadline         duration          `json:"stream_deadline"`
	MemoryBytes      uint64            `json:"memory_bytes"`
}

// exchange is one stream: what the client sends and what the upstream answers.
type exchange struct {
	Name     string  `json:"name"`
	Request  message `json:"request"`
	Response message `json:"response"`
	Repeat   int     `json:"repeat"`
	// Source is the client's address, Route and Cluster where the request goes.
	Source  string `json:"source"`
	Route   string `json:"route"`
	Cluster string `json:"cluster"`
	// Metadata is dynamic metadata by filter name.
	Metadata map[string]map[string]any `json:"metadata"`
	// BufferBytes is the stream's buffer limit, 1 MiB by default.
	BufferBytes int `json:"buffer_bytes"`
}

// message is a request or a response.
type message struct {
	Method    string   `json:"method"`
	Path      string   `json:"path"`
	Authority string   `json:"authority"`
	Scheme    string   `json:"scheme"`
	Status    int      `json:"status"`
	Headers   pairs    `json:"headers"`
	Body      string   `json:"body"`
	Chunks    []string `json:"chunks"`
	Trailers  pairs    `json:"trailers"`
}

// answer is what a cluster says to a call-out; the last one of a list is said again and again.
type answer struct {
	Status   int      `json:"status"`
	Headers  pairs    `json:"headers"`
	Body     string   `json:"body"`
	Trailers pairs    `json:"trailers"`
	Delay    duration `json:"delay"`
	// Reset ends the call without an answer.
	Reset bool `json:"reset"`
}

// pairs are headers: in a file a list of "name: value", or an object, whose values may be lists.
type pairs [][2]string

// UnmarshalJSON implements json.Unmarshaler.
func (p *pairs) UnmarshalJSON(b []byte) error {
	var list []string
	if err := json.Unmarshal(b, &list); err == nil {
		for _, line := range list {
			one, err := headerLine(line)
			if err != nil {
				return err
			}
			*p = append(*p, one)
		}
		return nil
	}
	var object map[string]any
	if err := json.Unmarshal(b, &object); err != nil {
		return errors.New(`headers are a list of "name: value", or an object`)
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values, ok := object[name].([]any)
		if !ok {
			values = []any{object[name]}
		}
		for _, v := range values {
			*p = append(*p, [2]string{strings.ToLower(name), fmt.Sprint(v)})
		}
	}
	return nil
}

// headerLine splits "name: value"; a pseudo header keeps its colon.
func headerLine(line string) ([2]string, error) {
	if line == "" {
		return [2]string{}, errors.New(`a header is "name: value"`)
	}
	i := strings.IndexByte(line[1:], ':')
	if i < 0 {
		return [2]string{}, fmt.Errorf(`a header is "name: value", not %q`, line)
	}
	return [2]string{strings.ToLower(strings.TrimSpace(line[:i+1])), strings.TrimSpace(line[i+2:])}, nil
}

// duration is written as Go writes it ("150ms"), or in seconds.
type duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *duration) UnmarshalJSON(b []byte) error {
	text := string(bytes.Trim(b, `"`))
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		*d = duration(seconds * float64(time.Second))
		return nil
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is no duration such as 150ms", text)
	}
	*d = duration(v)
	return nil
}

// maxScenarioBytes bounds the file.
const maxScenarioBytes = 64 << 20

// readScenario reads a file in YAML or JSON; fields that it doesn't know are mistakes.
func readScenario(file string) (*scenario, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxScenarioBytes {
		return nil, fmt.Errorf("%s: larger than %s", file, size(maxScenarioBytes))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s, err := parseScenario(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

func parseScenario(data []byte) (*scenario, error) {
	s := new(scenario)
	if err := yaml.UnmarshalStrict(data, s); err != nil {
		return nil, err
	}
	var errs []error
	for i := range s.Streams {
		x := &s.Streams[i]
		for _, m := range []struct {
			name string
			m    *message
		}{{"request", &x.Request}, {"response", &x.Response}} {
			if m.m.Body != "" && len(m.m.Chunks) > 0 {
				errs = append(errs, fmt.Errorf("streams[%d].%s: body and chunks are both set", i, m.name))
			}
		}
		if x.Response.Status != 0 && (x.Response.Status < 200 || x.Response.Status > 999) {
			errs = append(errs, fmt.Errorf("streams[%d].response.status: %d is no final status", i, x.Response.Status))
		}
	}
	for name, list := range s.Clusters {
		if len(list) == 0 {
			errs = append(errs, fmt.Errorf("clusters.%s: no answer", name))
		}
	}
	return s, errors.Join(errs...)
}

// pieces is the body in the parts in which it arrives.
func (m *message) pieces(chunk int) []string {
	if len(m.Chunks) > 0 {
		return m.Chunks
	}
	if m.Body == "" {
		return nil
	}
	if chunk <= 0 {
		return []string{m.Body}
	}
	var out []string
	for b := m.Body; b != ""; {
		n := min(chunk, len(b))
		out = append(out, b[:n])
		b = b[n:]
	}
	return out
}
