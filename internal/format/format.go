package format

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sidecar/api/stream"
)

// Error is what is wrong with a format, in Envoy's words.
type Error string

func (e Error) Error() string { return string(e) }

func errorf(format string, args ...any) error { return Error(fmt.Sprintf(format, args...)) }

// Options are what a format is compiled with.
type Options struct {
	// Hostname is what %HOSTNAME% prints.
	Hostname string
	// Getenv reads the environment for %ENVIRONMENT(X)%, at compile time as Envoy does; nil: none
	// set.
	Getenv func(name string) (string, bool)
	// OmitEmpty leaves out values that are not known, where "-" would be printed otherwise.
	OmitEmpty bool
	// InLog is set for access logs, where %LOCAL_REPLY_BODY% is empty, as in Envoy.
	InLog bool
	// Extensions are the commands of listed formatters, such as REQ_WITHOUT_QUERY.
	Extensions []string
}

// appender appends a value; it reports false, and whatever it appended is dropped, when the value
// is not known.
type appender func(dst []byte, in *stream.Info) ([]byte, bool)

// op is one operator, or literal text when text is nil.
type op struct {
	lit  string
	text appender
	// json appends the value as JSON; nil: the text, quoted unless raw says that it is JSON as it
	// is.
	json appender
	raw  bool
	max  int // bytes of the text; -1: any
}

// Formatter is a compiled format. It is immutable and may be used from any goroutine.
type Formatter struct {
	ops       []op
	omitEmpty bool
}

// Compile parses a text format. Its error has Envoy's text.
func Compile(text string, o Options) (*Formatter, error) {
	ops, err := parse(text, &o)
	if err != nil {
		return nil, err
	}
	return &Formatter{ops: ops, omitEmpty: o.OmitEmpty}, nil
}

// Append appends the formatted text to dst. The record is read only during the call.
func (f *Formatter) Append(dst []byte, in *stream.Info) []byte {
	return appendOps(dst, f.ops, in, f.omitEmpty)
}

// Constant returns the text of a format without operators.
func (f *Formatter) Constant() (string, bool) {
	switch {
	case len(f.ops) == 0:
		return "", true
	case len(f.ops) == 1 && f.ops[0].text == nil:
		return f.ops[0].lit, true
	}
	return "", false
}

func appendOps(dst []byte, ops []op, in *stream.Info, omitEmpty bool) []byte {
	for i := range ops {
		o := &ops[i]
		if o.text == nil {
			dst = append(dst, o.lit...)
			continue
		}
		dst = o.appendText(dst, in, omitEmpty)
	}
	return dst
}

func (o *op) appendText(dst []byte, in *stream.Info, omitEmpty bool) []byte {
	n := len(dst)
	dst, ok := o.text(dst, in)
	switch {
	case !ok && omitEmpty:
		return dst[:n]
	case !ok:
		return append(dst[:n], '-')
	case o.max >= 0 && len(dst)-n > o.max:
		return dst[:n+o.max]
	}
	return dst
}

// parse splits a format into literal text and operators; adjoining text is one literal.
func parse(text string, o *Options) ([]op, error) {
	var ops []op
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			ops = append(ops, op{lit: lit.String(), max: -1})
			lit.Reset()
		}
	}
	for i := 0; i < len(text); {
		if text[i] != '%' {
			lit.WriteByte(text[i])
			i++
			continue
		}
		if strings.HasPrefix(text[i:], "%%") {
			lit.WriteByte('%')
			i += 2
			continue
		}
		c, n, ok := parseCommand(text[i:])
		if !ok {
			return nil, errorf("Incorrect configuration: %s. Couldn't find valid command at position %d", text, i)
		}
		v, err := c.compile(o)
		if err != nil {
			return nil, err
		}
		flush()
		ops = append(ops, v)
		i += n
	}
	flush()
	return ops, nil
}

// command is one operator as it is written: NAME(param):max.
type command struct {
	name   string
	param  string
	max    int
	hasMax bool
}

// parseCommand reads the command that text begins with and returns its length. The parameter ends
// at the first parenthesis after which the command can end, so it may hold others, and percent
// signs.
func parseCommand(text string) (c command, n int, ok bool) {
	i := 1
	for i < len(text) && (text[i] >= 'A' && text[i] <= 'Z' || text[i] >= '0' && text[i] <= '9' || text[i] == '_') {
		i++
	}
	if i == 1 || i == len(text) {
		return c, 0, false
	}
	c = command{name: text[1:i], max: -1}
	if text[i] != '(' {
		n, ok = c.parseEnd(text, i)
		return c, n, ok
	}
	for j := i + 1; j < len(text) && text[j] != '\n'; j++ {
		if text[j] != ')' {
			continue
		}
		c.param = text[i+1 : j]
		if n, ok = c.parseEnd(text, j+1); ok {
			return c, n, true
		}
	}
	return c, 0, false
}

// parseEnd reads ":max%" or "%" at i and returns the index behind it.
func (c *command) parseEnd(text string, i int) (int, bool) {
	rest := text[i:]
	if strings.HasPrefix(rest, "%") {
		return i + 1, true
	}
	if !strings.HasPrefix(rest, ":") {
		return 0, false
	}
	digits, _, found := strings.Cut(rest[1:], "%")
	if !found || digits == "" || digits[0] == '+' || digits[0] == '-' {
		return 0, false
	}
	max, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return 0, false
	}
	c.max, c.hasMax = int(max), true
	return i + 1 + len(digits) + 1, true
}

// compile finds the operator, checks that it may have the parameter and the length, and makes it.
func (c *command) compile(o *Options) (op, error) {
	if v := simpleOp(c.name); v.text != nil {
		if c.param != "" || c.hasMax {
			return op{}, errorf("%s does not take any parameters or length", c.name)
		}
		v.max = -1
		return v, nil
	}
	d, ok := commands()[c.name]
	switch {
	case !ok || d.extension && !contains(o.Extensions, c.name):
		if unsupported(c.name) {
			return op{}, errorf("%s is not supported by this proxy", c.name)
		}
		return op{}, errorf("Not supported field in StreamInfo: %s", c.name)
	case d.param == paramRequired && c.param == "":
		return op{}, errorf("%s requires parameters", c.name)
	case d.param == paramNone && c.param != "", !d.length && d.param == paramNone && c.hasMax:
		return op{}, errorf("%s does not take any parameters or length", c.name)
	case !d.length && c.hasMax:
		return op{}, errorf("%s does not allow length to be specified.", c.name)
	}
	v, err := d.make(c.param, o)
	if err != nil {
		return op{}, err
	}
	v.max = c.max
	return v, nil
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}
