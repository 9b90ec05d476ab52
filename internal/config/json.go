package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// parseJSON reads one JSON value and nothing after it.
//
// DIVERGES(json-syntax): Envoy's parser also takes single quotes and bare names for keys; here JSON
// is JSON.
func parseJSON(data []byte) (root *node, duplicates []entry, err error) {
	if !utf8.Valid(data) {
		return nil, nil, &Error{Err: errors.New("is not valid UTF-8")}
	}
	c := jsonReader{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	c.dec.UseNumber()
	root, err = c.value(0)
	if err != nil {
		return nil, nil, err
	}
	if tok, err := c.token(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = fmt.Errorf("unexpected %v after the end of the value", tok)
		}
		return nil, nil, c.fail(err)
	}
	return root, c.duplicates, nil
}

type jsonReader struct {
	data       []byte
	dec        *json.Decoder
	at, line   int // how far lines are counted
	duplicates []entry
}

func (c *jsonReader) fail(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		c.count(int(syntax.Offset))
	}
	return &Error{Line: c.line, Err: err}
}

// count moves the line on to an offset; the offsets only grow.
func (c *jsonReader) count(offset int) {
	offset = min(offset, len(c.data))
	if offset > c.at {
		c.line += bytes.Count(c.data[c.at:offset], []byte{'\n'})
		c.at = offset
	}
}

func (c *jsonReader) token() (json.Token, error) {
	start := c.dec.InputOffset()
	tok, err := c.dec.Token()
	if err != nil {
		return nil, err
	}
	end := c.dec.InputOffset()
	c.count(int(end))
	if _, ok := tok.(string); ok && !pairedSurrogates(c.data[start:end]) {
		return nil, errors.New(`half of a surrogate pair (\u) in a string`)
	}
	return tok, nil
}

func (c *jsonReader) value(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, c.fail(fmt.Errorf("nested deeper than %d levels", maxDepth))
	}
	tok, err := c.token()
	if err != nil {
		return nil, c.fail(err)
	}
	n := &node{line: c.line}
	switch x := tok.(type) {
	case nil:
		return n, nil
	case bool:
		n.kind, n.truth = kindBool, x
		return n, nil
	case json.Number:
		n.kind, n.text = kindNumber, x.String()
		return n, nil
	case string:
		n.kind, n.text = kindText, x
		return n, nil
	case json.Delim:
		if x == '[' {
			n.kind = kindList
			return n, c.list(n, depth)
		}
		n.kind = kindObject
		return n, c.object(n, depth)
	}
	return nil, c.fail(fmt.Errorf("unexpected %v", tok))
}

func (c *jsonReader) list(n *node, depth int) error {
	for c.dec.More() {
		item, err := c.value(depth + 1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	return c.end()
}

func (c *jsonReader) object(n *node, depth int) error {
	b := objectBuilder{node: n}
	for c.dec.More() {
		key, err := c.token()
		if err != nil {
			return c.fail(err)
		}
		name, ok := key.(string)
		if !ok {
			return c.fail(fmt.Errorf("a key must be a string, got %v", key))
		}
		e := entry{name: name, line: c.line}
		if e.value, err = c.value(depth + 1); err != nil {
			return err
		}
		if b.set(e) {
			c.duplicates = append(c.duplicates, e)
		}
	}
	return c.end()
}

func (c *jsonReader) end() error {
	if _, err := c.token(); err != nil {
		return c.fail(err)
	}
	return nil
}

// pairedSurrogates looks at the escapes of a raw string: encoding/json replaces a half pair in
// silence.
func pairedSurrogates(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		if i++; i >= len(raw) || raw[i] != 'u' {
			continue
		}
		r := escapedRune(raw[i+1:])
		i += 4
		if !utf16.IsSurrogate(r) {
			continue
		}
		if i+2 >= len(raw) || raw[i+1] != '\\' || raw[i+2] != 'u' {
			return false
		}
		if utf16.DecodeRune(r, escapedRune(raw[i+3:])) == utf8.RuneError {
			return false
		}
		i += 6
	}
	return true
}

func escapedRune(hex []byte) rune {
	if len(hex) < 4 {
		return utf8.RuneError
	}
	r, err := strconv.ParseUint(string(hex[:4]), 16, 32)
	if err != nil {
		return utf8.RuneError
	}
	return rune(r)
}
