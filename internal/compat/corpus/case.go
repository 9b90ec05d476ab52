package corpus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Group is a file of cases.
type Group struct {
	Name      string            `json:"-"` // of the file
	Doc       string            `json:"doc"`
	Listeners []Listener        `json:"listeners"`
	Clusters  []Cluster         `json:"clusters"`
	Bootstrap map[string]any    `json:"bootstrap"` // merged over the whole bootstrap
	Args      []string          `json:"args"`      // of the proxy
	Files     map[string]string `json:"files"`     // written to the run's folder, @dir@
	// What cases have that don't say it themselves.
	TLS         *TLS   `json:"tls"`
	UpstreamTLS *TLS   `json:"upstream_tls"`
	UpstreamH2  bool   `json:"upstream_h2"`
	Cases       []Case `json:"cases"`
}

// Listener is one listener; HCM, Routes and VirtualHosts shape its HTTP connection manager, Filter
// replaces it, Raw is merged over the listener itself.
type Listener struct {
	Name         string         `json:"name"`
	HCM          map[string]any `json:"hcm"`
	Routes       []any          `json:"routes"`
	VirtualHosts []any          `json:"virtual_hosts"`
	Filters      []any          `json:"filters"`
	LogFormat    string         `json:"log_format"`
	LogJSON      map[string]any `json:"log_json"`
	// TLS are the fields of its DownstreamTlsContext, Match those of its chain's filter_chain_match.
	TLS   map[string]any `json:"tls"`
	Match map[string]any `json:"match"`
	// DefaultLog leaves the format of the access log to the proxy.
	DefaultLog bool           `json:"default_log"`
	Raw        map[string]any `json:"raw"`
}

// Cluster is one cluster. Hosts name upstreams, or "dead" for a port that nobody listens on.
type Cluster struct {
	Name  string         `json:"name"`
	Hosts []string       `json:"hosts"`
	TLS   map[string]any `json:"tls"` // the fields of its UpstreamTlsContext
	Raw   map[string]any `json:"raw"` // merged over the cluster
}

// Case is one exchange.
type Case struct {
	Name string `json:"name"`
	Doc  string `json:"doc"`

	// Listener is where the client connects: "main" when empty, "admin" for the admin interface.
	Listener string `json:"listener"`

	// The client: the short form Get (with Method, Host, Headers, Body), or the text of a whole
	// request, or steps, or several clients with steps each.
	Get     string   `json:"get"`
	Method  string   `json:"method"`
	Host    string   `json:"host"`
	Headers []string `json:"headers"`
	Body    string   `json:"body"`
	Request string   `json:"request"`
	Raw     string   `json:"raw"`
	Steps   []Step   `json:"steps"`
	Clients [][]Step `json:"clients"`

	// The upstreams: Answers in the order of requests, whatever the connection; or a script for
	// each connection, in the order they come. Upstream and Answers are those of "main".
	Answers   []Answer            `json:"answers"`
	Upstream  [][]Step            `json:"upstream"`
	Upstreams map[string]Upstream `json:"upstreams"`

	// TLS puts the clients' bytes under TLS; UpstreamTLS and UpstreamH2 are for the upstream "main".
	TLS         *TLS  `json:"tls"`
	UpstreamTLS *TLS  `json:"upstream_tls"`
	UpstreamH2  *bool `json:"upstream_h2"`

	// Within bounds each read of the client.
	Within Duration `json:"within"`
	// Settle is how long the client waits for the proxy to close after the last answer.
	Settle Duration `json:"settle"`
	// WholeBody keeps a long body instead of its digest.
	WholeBody bool `json:"whole_body"`
	// NoStats leaves the statistics of this case out: they depend on timing.
	NoStats bool `json:"no_stats"`
}

// Upstream is what one upstream does in a case.
type Upstream struct {
	Answers     []Answer `json:"answers"`
	Connections [][]Step `json:"connections"`
	TLS         *TLS     `json:"tls"`
	HTTP2       bool     `json:"http2"` // without TLS, where ALPN says it
}

// Step is one thing that a client or an upstream does. In YAML it is a word (Do) or a map of one
// entry.
type Step struct {
	Do     string   `json:"do"`     // close, reset, half-close, read, request, head, body, hold, echo, now
	Send   string   `json:"send"`   // text: line ends become CRLF, a head gets its empty line
	Raw    string   `json:"raw"`    // bytes as they are
	Data   int      `json:"data"`   // read so many bytes
	Read   int      `json:"read"`   // read so many final responses
	H2     *H2      `json:"h2"`     // a request of HTTP/2, or bytes of its frames
	Wait   Duration `json:"wait"`   // do nothing
	Signal string   `json:"signal"` // let those go on who await this
	Await  string   `json:"await"`
}

// H2 is what a client of HTTP/2 sends; the preface goes before the first.
type H2 struct {
	Stream  uint32   `json:"stream"`
	Headers []string `json:"headers"` // name: value, in the order sent
	Body    string   `json:"body"`
	// Trailers end the stream; without Headers, Body and Trailers an empty DATA frame does.
	Trailers []string `json:"trailers"`
	Open     bool     `json:"open"`  // the stream isn't ended
	Times    int      `json:"times"` // the same so many times
	Frame    *Frame   `json:"frame"` // any frame instead
	// Answers is how many streams' ends (answers, resets) or connection's ends are awaited after it.
	Answers int `json:"answers"`
}

// Frame is one frame as it stands.
type Frame struct {
	Type   uint8  `json:"type"`
	Flags  uint8  `json:"flags"`
	Stream uint32 `json:"stream"`
	Data   string `json:"data"`
	Hex    string `json:"hex"` // behind Data
}

// UnmarshalJSON takes a bare word for Do.
func (s *Step) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &s.Do)
	}
	type plain Step
	return strictJSON(data, (*plain)(s))
}

// TLS is how clients speak it. Certificates are those that the run makes: see the play package.
type TLS struct {
	Certificate string   `json:"certificate"` // name, none when empty
	SNI         string   `json:"sni"`
	ALPN        []string `json:"alpn"`
	Max         string   `json:"max"`        // 1.1, 1.2 or 1.3
	Off         bool     `json:"plaintext"`  // plaintext, where the group says TLS
	AskClient   bool     `json:"ask_client"` // of an upstream: wants a certificate, and takes any
}

// Admin is the name under which cases reach the admin interface.
const Admin = "admin"

// Answer is a whole response; in YAML a status code stands for a simple one.
type Answer struct{ Bytes string }

// UnmarshalJSON takes a number or a text.
func (a *Answer) UnmarshalJSON(data []byte) error {
	var status int
	if json.Unmarshal(data, &status) == nil {
		body := fmt.Sprintf("answer %d", status)
		a.Bytes = fmt.Sprintf("HTTP/1.1 %d Status\r\ncontent-length: %d\r\n\r\n%s", status,
			len(body), body)
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	a.Bytes = Text(text)
	return nil
}

// Duration is a time.Duration that is written like 1.5s.
type Duration time.Duration

// UnmarshalJSON parses the text form.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	v, err := time.ParseDuration(text)
	*d = Duration(v)
	return err
}

func strictJSON(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// Load reads every group of dir, by name.
func Load(dir string) ([]*Group, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no case files", dir)
	}
	sort.Strings(files)
	groups := make([]*Group, 0, len(files))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		g, parseErr := Parse(strings.TrimSuffix(filepath.Base(file), ".yaml"), data)
		groups, err = append(groups, g), parseErr
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return groups, nil
}

// Parse reads one group and fills in the defaults.
func Parse(name string, data []byte) (*Group, error) {
	js, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	g := &Group{Name: name}
	if err := strictJSON(js, g); err != nil {
		return nil, err
	}
	if len(g.Listeners) == 0 {
		g.Listeners = []Listener{{Name: "main"}}
	}
	if len(g.Clusters) == 0 {
		g.Clusters = []Cluster{{Name: "main"}}
	}
	return g, g.check()
}

func (g *Group) check() error {
	var errs []error
	listeners := map[string]bool{}
	for _, l := range g.Listeners {
		if l.Name == "" || listeners[l.Name] {
			errs = append(errs, fmt.Errorf("listeners: name %q is empty or used twice", l.Name))
		}
		listeners[l.Name] = true
	}
	seen := map[string]bool{}
	for i := range g.Cases {
		c := &g.Cases[i]
		if c.Name == "" || seen[c.Name] {
			errs = append(errs, fmt.Errorf("cases[%d]: name %q is empty or used twice", i, c.Name))
		}
		seen[c.Name] = true
		c.inherit(g)
		if err := c.normalise(listeners); err != nil {
			errs = append(errs, fmt.Errorf("case %q: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}

const (
	defaultWithin = 4 * time.Second
	defaultSettle = 60 * time.Millisecond
)

// inherit takes over what the group says for all its cases.
func (c *Case) inherit(g *Group) {
	if c.TLS == nil {
		c.TLS = g.TLS
	}
	if c.UpstreamTLS == nil {
		c.UpstreamTLS = g.UpstreamTLS
	}
	if c.UpstreamH2 == nil {
		c.UpstreamH2 = &g.UpstreamH2
	}
}

// OverHTTP2 tells that an upstream of the case may be spoken to in HTTP/2.
func (c *Case) OverHTTP2() bool {
	for _, u := range c.Upstreams {
		if u.HTTP2 || u.TLS != nil && slices.Contains(u.TLS.ALPN, "h2") {
			return true
		}
	}
	return false
}

// normalise turns the short forms of a case into Clients and Upstreams.
func (c *Case) normalise(listeners map[string]bool) error {
	if c.Listener == "" {
		c.Listener = "main"
	}
	if !listeners[c.Listener] && c.Listener != Admin {
		return fmt.Errorf("listener %q is not in the file", c.Listener)
	}
	if c.Within == 0 {
		c.Within = Duration(defaultWithin)
	}
	if c.Settle == 0 {
		c.Settle = Duration(defaultSettle)
	}
	forms := 0
	for _, used := range []bool{c.Get != "", c.Request != "", c.Raw != "", len(c.Steps) > 0, len(c.Clients) > 0} {
		if used {
			forms++
		}
	}
	if forms != 1 {
		return fmt.Errorf("%d of get, request, raw, steps, clients given, want one", forms)
	}
	switch {
	case c.Get != "":
		c.Clients = [][]Step{{{Raw: c.shortRequest()}, {Read: 1}}}
	case c.Request != "":
		c.Clients = [][]Step{{{Send: c.Request}, {Read: 1}}}
	case c.Raw != "":
		c.Clients = [][]Step{{{Raw: c.Raw}, {Read: 1}}}
	case len(c.Steps) > 0:
		c.Clients = [][]Step{c.Steps}
	}
	if c.Upstreams == nil {
		c.Upstreams = map[string]Upstream{}
	}
	if len(c.Answers) > 0 || len(c.Upstream) > 0 {
		if _, ok := c.Upstreams["main"]; ok {
			return errors.New("upstream main is given twice")
		}
		c.Upstreams["main"] = Upstream{Answers: c.Answers, Connections: c.Upstream}
	}
	if c.UpstreamTLS != nil || *c.UpstreamH2 {
		u := c.Upstreams["main"]
		u.TLS, u.HTTP2 = c.UpstreamTLS, *c.UpstreamH2
		c.Upstreams["main"] = u
	}
	return nil
}

func (c *Case) shortRequest() string {
	method, host := c.Method, c.Host
	if method == "" {
		method = "GET"
	}
	if host == "" {
		host = "a.test"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, c.Get, host)
	for _, h := range c.Headers {
		b.WriteString(h + "\r\n")
	}
	if c.Body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(c.Body))
	}
	b.WriteString("\r\n" + c.Body)
	return b.String()
}

// LoadConfigs reads the configs that are only validated: each file of dir is a list of groups
// without cases, each with a name.
func LoadConfigs(dir string) ([]*Group, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	sort.Strings(files)
	var out []*Group
	seen := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var list []map[string]any
		if err := yaml.Unmarshal(data, &list); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for i, entry := range list {
			name, _ := entry["name"].(string)
			if name == "" || seen[name] {
				return nil, fmt.Errorf("%s: [%d]: name %q is empty or used twice", file, i, name)
			}
			seen[name] = true
			delete(entry, "name")
			body, err := json.Marshal(entry)
			if err != nil {
				return nil, err
			}
			g, err := Parse(name, body)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", file, name, err)
			}
			out = append(out, g)
		}
	}
	return out, nil
}
