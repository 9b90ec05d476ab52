package admin

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The content types of answers.
const (
	typeText = "text/plain; charset=UTF-8"
	typeJSON = "application/json"
	typeHTML = "text/html; charset=UTF-8"
)

// endpoint is one path.
type endpoint struct {
	path, help string
	params     []param
	mutates    bool
	// more keeps an endpoint out of the help: an answer that says what isn't there.
	hidden bool
	serve  func(*request) answer
}

type param struct{ name, help string }

// request is what an endpoint is asked.
type request struct {
	*http.Request
	query query
}

// answer is a status with a body, or with what writes one.
type answer struct {
	status      int
	contentType string
	body        []byte
	write       func(io.Writer) error // instead of body
}

func text(status int, body string) answer {
	return answer{status: status, contentType: typeText, body: []byte(body)}
}

func textf(status int, format string, args ...any) answer {
	return text(status, fmt.Sprintf(format, args...))
}

func ok() answer { return text(http.StatusOK, "OK\n") }

// query is the query of a URL in its order. Unlike in a form, "+" is itself: filters are regular
// expressions.
type query []pair

type pair struct{ name, value string }

func parseQuery(raw string) query {
	var q query
	for raw != "" {
		var one string
		one, raw, _ = strings.Cut(raw, "&")
		if one == "" {
			continue
		}
		name, value, _ := strings.Cut(one, "=")
		q = append(q, pair{unescape(name), unescape(value)})
	}
	return q
}

func unescape(s string) string {
	if v, err := url.PathUnescape(s); err == nil {
		return v
	}
	return s
}

func (q query) get(name string) (string, bool) {
	for _, p := range q {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

func (q query) has(name string) bool {
	_, ok := q.get(name)
	return ok
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	s.stats.RqTotal.Inc()
	s.stats.RqActive.Inc()
	r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	counted := &counter{ResponseWriter: w}
	a := s.answer(r)
	h := w.Header()
	// Lower case as Envoy writes them.
	h["content-type"] = []string{a.contentType}
	h["cache-control"] = []string{"no-cache, max-age=0"}
	h["x-content-type-options"] = []string{"nosniff"}
	h["server"] = []string{"envoy"}
	w.WriteHeader(a.status)
	// Envoy's answers are chunked, however short.
	if f, isFlusher := w.(http.Flusher); isFlusher {
		f.Flush()
	}
	var err error
	if a.write != nil {
		err = a.write(counted)
	} else {
		_, err = counted.Write(a.body)
	}
	if err != nil {
		s.options.Log.Debug("admin answer", "path", r.URL.Path, "error", err)
	}
	s.stats.done(a.status)
	s.log(r, a.status, counted.n, start)
}

// counter counts the bytes of an answer.
type counter struct {
	http.ResponseWriter
	n uint64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n += uint64(n)
	return n, err
}

func (s *Server) answer(r *http.Request) answer {
	e := s.endpoints[r.URL.Path]
	switch {
	case e == nil:
		return text(http.StatusNotFound, "invalid path. "+s.help())
	case e.mutates && r.Method != http.MethodPost:
		s.options.Log.Error(fmt.Sprintf("admin path %q mutates state, method=%s rather than POST", r.URL.Path, r.Method))
		return textf(http.StatusMethodNotAllowed, "Method %s not allowed, POST required.", r.Method)
	}
	return e.serve(&request{Request: r, query: parseQuery(r.URL.RawQuery)})
}

// help lists the endpoints with their parameters.
func (s *Server) help() string {
	var b strings.Builder
	b.WriteString("admin commands are:\n")
	for _, e := range s.table() {
		if e.hidden {
			continue
		}
		b.WriteString("  " + e.path)
		if e.mutates {
			b.WriteString(" (POST)")
		}
		b.WriteString(": " + e.help + "\n")
		for _, p := range e.params {
			b.WriteString("      " + p.name + ": " + p.help + "\n")
		}
	}
	return b.String()
}

func (s *Server) serveHelp(*request) answer { return text(http.StatusOK, s.help()) }

func (s *Server) serveHome(*request) answer {
	var b strings.Builder
	b.WriteString("<!DOCTYPE html>\n<html lang='en'>\n<head><title>Envoy Admin</title></head>\n<body>\n<table>\n")
	for _, e := range s.table() {
		if e.hidden || e.path == "/" {
			continue
		}
		name := strings.TrimPrefix(e.path, "/")
		if e.mutates {
			fmt.Fprintf(&b, "<tr><td><form action='%[1]s' method='post'><button>%[1]s</button></form></td><td>%[2]s</td></tr>\n", name, e.help)
			continue
		}
		fmt.Fprintf(&b, "<tr><td><a href='%[1]s'>%[1]s</a></td><td>%[2]s</td></tr>\n", name, e.help)
	}
	b.WriteString("</table>\n</body>\n</html>\n")
	return answer{status: http.StatusOK, contentType: typeHTML, body: []byte(b.String())}
}
