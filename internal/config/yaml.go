package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxAliasNodes bounds what aliases may add to a document: a few hundred bytes of them can stand
// for gigabytes.
const maxAliasNodes = 100_000

// yamlLine finds the line in an error of the YAML parser, which has no other way to tell it.
var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// parserError tells the errors of the library's parser from those of its scanner: only the scanner
// counts lines from 1.
var parserError = regexp.MustCompile(`^did not find expected (node content|key|',' or|'-' indicator|<)`)

// parseYAML reads the first document, as Envoy does; no document at all is a null.
func parseYAML(data []byte) (root *node, duplicates []entry, err error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ := strconv.Atoi(m[1])
			text := strings.TrimPrefix(err.Error(), m[0])
			if parserError.MatchString(text) {
				line++
			}
			return nil, nil, &Error{Line: line, Err: errors.New(text)}
		}
		return nil, nil, &Error{Err: errors.New(strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return &node{line: 1}, nil, nil
	}
	var c yamlConverter
	root, err = c.convert(doc.Content[0], 0)
	return root, c.duplicates, err
}

type yamlConverter struct {
	duplicates []entry
	aliases    int // how many aliases the node at hand is inside of
	aliased    int // nodes that aliases have added
}

func (c *yamlConverter) convert(y *yaml.Node, depth int) (*node, error) {
	if depth > maxDepth {
		return nil, &Error{Line: y.Line, Err: fmt.Errorf("nested deeper than %d levels", maxDepth)}
	}
	if c.aliases > 0 {
		if c.aliased++; c.aliased > maxAliasNodes {
			return nil, &Error{Line: y.Line, Err: fmt.Errorf("aliases stand for more than %d values", maxAliasNodes)}
		}
	}
	switch y.Kind {
	case yaml.AliasNode:
		c.aliases++
		n, err := c.convert(y.Alias, depth+1)
		c.aliases--
		return n, err
	case yaml.SequenceNode:
		n := &node{kind: kindList, line: y.Line, items: make([]*node, 0, len(y.Content))}
		for _, item := range y.Content {
			child, err := c.convert(item, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, child)
		}
		return n, nil
	case yaml.MappingNode:
		return c.mapping(y, depth)
	default:
		return yamlScalar(y), nil
	}
}

func (c *yamlConverter) mapping(y *yaml.Node, depth int) (*node, error) {
	n := &node{kind: kindObject, line: y.Line, entries: make([]entry, 0, len(y.Content)/2)}
	b := objectBuilder{node: n}
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			return nil, &Error{Line: key.Line, Err: errors.New("a key must be a plain value")}
		}
		value, err := c.convert(y.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		e := entry{name: key.Value, line: y.Content[i].Line, value: value}
		if b.set(e) {
			c.duplicates = append(c.duplicates, e)
		}
	}
	return n, nil
}

// yamlScalar finds the type of a scalar as Envoy does, which knows neither the schema nor YAML 1.2:
// quoted and block scalars are texts; plain ones are tried as a boolean (y, Yes, ON), then as an
// integer (0x10, 010 is eight), then they are texts. A plain 1.5 stays a text that a number field
// reads, and is a text inside a Struct; so is an integer that doesn't fit into 32 bits. A tag
// has no say, except that it makes a quoted scalar a plain one.
func yamlScalar(y *yaml.Node) *node {
	const notPlain = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	n := &node{kind: kindText, text: y.Value, line: y.Line}
	if y.Style&notPlain != 0 && y.Style&yaml.TaggedStyle == 0 {
		return n
	}
	if slices.Contains([]string{"", "~", "null", "Null", "NULL"}, y.Value) {
		n.kind = kindNull
		return n
	}
	if truth, ok := yamlBool(y.Value); ok {
		n.kind, n.truth = kindBool, truth
		return n
	}
	if i, ok := yamlInt(y.Value); ok {
		n.text = strconv.FormatInt(i, 10)
		if i == int64(int32(i)) {
			n.kind = kindNumber
		}
	}
	return n
}

func yamlBool(s string) (truth, ok bool) {
	if len(s) > len("false") {
		return false, false
	}
	lower := strings.ToLower(s)
	if s != lower && s != strings.ToUpper(s) && s != strings.ToUpper(s[:1])+lower[1:] {
		return false, false
	}
	switch lower {
	case "y", "yes", "true", "on":
		return true, true
	case "n", "no", "false", "off":
		return false, true
	}
	return false, false
}

func yamlInt(s string) (int64, bool) {
	digits := strings.TrimLeft(s, "+-")
	if digits == "" || len(s)-len(digits) > 1 || digits[0] < '0' || digits[0] > '9' {
		return 0, false
	}
	base := 10
	if len(digits) > 1 && digits[0] == '0' {
		base = 8
		if digits[1] == 'x' || digits[1] == 'X' {
			base, digits = 16, digits[2:]
		}
	}
	if digits == "" || digits[0] == '+' || digits[0] == '-' {
		return 0, false
	}
	if s[0] == '-' {
		digits = "-" + digits
	}
	i, err := strconv.ParseInt(digits, base, 64)
	return i, err == nil
}
