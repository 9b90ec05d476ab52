package corpus

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Text makes the bytes of a message from the way it is written in a case file: line ends become
// CRLF, one line end at the end is the file format's, and a head without its empty line gets it.
func Text(s string) string {
	s = strings.TrimSuffix(s, "\n")
	if !strings.Contains(s, "\n\n") {
		s += "\n\n"
	}
	head, body, _ := strings.Cut(s, "\n\n")
	return strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" + body
}

// Expander replaces the placeholders of case files: @NAME@ from the table, @rep:TEXT:N@ for
// something long, @headers:N@ for many headers.
type Expander map[string]string

const maxExpansion = 4 << 20

var placeholder = regexp.MustCompile(`@([a-z][a-z0-9_.-]*)(?::([^@]*))?@`)

// Expand replaces the placeholders in s.
func (e Expander) Expand(s string) (string, error) {
	var failed error
	out := placeholder.ReplaceAllStringFunc(s, func(match string) string {
		parts := placeholder.FindStringSubmatch(match)
		text, err := e.expand(parts[1], parts[2])
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", match, err)
		}
		return text
	})
	return out, failed
}

func (e Expander) expand(name, arg string) (string, error) {
	switch name {
	case "rep":
		i := strings.LastIndexByte(arg, ':')
		if i < 0 {
			return "", errors.New("want @rep:TEXT:N@")
		}
		n, err := strconv.Atoi(arg[i+1:])
		if err != nil || n < 0 || n*i > maxExpansion {
			return "", fmt.Errorf("bad count %q", arg[i+1:])
		}
		return strings.Repeat(arg[:i], n), nil
	case "headers":
		n, err := strconv.Atoi(arg)
		if err != nil || n < 0 || n > 10000 {
			return "", fmt.Errorf("bad count %q", arg)
		}
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "h%d: v\r\n", i)
		}
		return b.String(), nil
	}
	text, ok := e[name]
	if !ok {
		return "", errors.New("no such placeholder")
	}
	return text, nil
}
