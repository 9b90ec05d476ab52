package config

import (
	"errors"
	"strconv"
	"strings"
)

// Locate adds the file and line to those errors that have only a path: to what was found wrong with
// a message after it had been parsed from this text. The text is parsed once more, so that nothing
// has to be kept while all is well. Errors whose path the text doesn't have are left as they are.
func Locate(name string, f Format, data []byte, err error) error {
	if err == nil || (f != YAML && f != JSON) {
		return err
	}
	parse := parseJSON
	if f == YAML {
		parse = parseYAML
	}
	root, _, parseErr := parse(data)
	if parseErr != nil {
		return err
	}
	var out []error
	for _, e := range Flatten(err) {
		placed := *e
		if placed.File == "" && placed.Path != "" {
			if line := root.lineOf(placed.Path); line > 0 {
				placed.File, placed.Line = name, line
			}
		}
		out = append(out, &placed)
	}
	return errors.Join(out...)
}

// lineOf follows a rendered path and gives the line of the last step that is there, 0 if the first
// one isn't: a field that is missing is a mistake of the object that it is missing from.
func (n *node) lineOf(path string) int {
	line := 0
	for path != "" {
		var next *node
		var at int
		switch {
		case strings.HasPrefix(path, "["):
			next, at, path = n.element(path)
		default:
			end := strings.IndexAny(strings.TrimPrefix(path, "."), ".[")
			name, rest := strings.TrimPrefix(path, "."), ""
			if end >= 0 {
				name, rest = name[:end], name[end:]
			}
			next, at = n.field(name)
			path = rest
		}
		if next == nil {
			return line
		}
		n, line = next, at
	}
	return line
}

// field finds a field by its name in the .proto file, its name in JSON, or inside the value of a
// TypedStruct.
func (n *node) field(name string) (*node, int) {
	for i := range n.entries {
		if e := &n.entries[i]; e.name == name || e.name == jsonName(name) {
			return e.value, e.line
		}
	}
	if inner := n.get("value"); inner != nil && n.get("type_url") != nil {
		return inner.field(name)
	}
	return nil, 0
}

// element finds what [2] or ["key"] at the beginning of path stands for.
func (n *node) element(path string) (next *node, line int, rest string) {
	if strings.HasPrefix(path, `["`) {
		quoted, err := strconv.QuotedPrefix(path[1:])
		if err != nil {
			return nil, 0, ""
		}
		key, _ := strconv.Unquote(quoted)
		rest = strings.TrimPrefix(path[1+len(quoted):], "]")
		for i := range n.entries {
			if n.entries[i].name == key {
				return n.entries[i].value, n.entries[i].line, rest
			}
		}
		return nil, 0, rest
	}
	digits, rest, _ := strings.Cut(path[1:], "]")
	i, err := strconv.Atoi(digits)
	if err != nil || i < 0 || i >= len(n.items) {
		return nil, 0, rest
	}
	return n.items[i], n.items[i].line, rest
}

func jsonName(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '_' && i+1 < len(name) {
			i++
			b.WriteString(strings.ToUpper(name[i : i+1]))
			continue
		}
		b.WriteByte(name[i])
	}
	return b.String()
}
