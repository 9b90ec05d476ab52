package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxErrors bounds what one bad resource can make us hold and send back in a NACK.
const maxErrors = 200

// Error is one thing that is wrong with a configuration.
type Error struct {
	// File and Line tell where it was written; empty and 0 if it came over the wire.
	File string
	Line int
	// Path is the field, from the message that was loaded or compiled; empty: the message itself.
	Path string
	// Err says what is wrong, in words that follow a path and a colon.
	Err error
}

// Error renders file:line: path: what is wrong.
func (e *Error) Error() string {
	text := e.Err.Error()
	if e.Path != "" {
		text = e.Path + ": " + text
	}
	switch {
	case e.File != "" && e.Line > 0:
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, text)
	case e.File != "":
		return e.File + ": " + text
	}
	return text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errors collects everything that is wrong with a message. The zero value is ready. It belongs to
// the goroutine that compiles.
type Errors struct {
	list    []error
	seen    map[string]struct{}
	loaded  paths
	dropped int
}

// paths are the fields that are wrong as they are written: an error with a file comes from loading,
// and what compiling has to say of the same field, or of what is inside it, is only a consequence.
type paths map[string]struct{}

func (p paths) with(path string) paths {
	if p == nil {
		p = paths{}
	}
	if path != "" {
		p[path] = struct{}{}
	}
	return p
}

// covers tells whether path or what it is inside of is among p.
func (p paths) covers(path string) bool {
	for len(p) > 0 && path != "" {
		if _, ok := p[path]; ok {
			return true
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return false
}

// Add reports a field. The message follows the path and a colon: "is required", "must be positive".
func (e *Errors) Add(p *Path, message string) {
	e.add(&Error{Path: p.String(), Err: errors.New(message)})
}

// Addf is Add with a format; %w keeps a cause.
func (e *Errors) Addf(p *Path, format string, args ...any) {
	e.add(&Error{Path: p.String(), Err: fmt.Errorf(format, args...)})
}

// Wrap reports the error of something that was compiled for its own: each error joined in err gets
// p put in front of its path. A nil err reports nothing.
func (e *Errors) Wrap(p *Path, err error) {
	front := p.String()
	for _, one := range Flatten(err) {
		moved := *one
		moved.Path = joinPaths(front, one.Path)
		e.add(&moved)
	}
}

func (e *Errors) add(err *Error) {
	if err.File == "" && e.loaded.covers(err.Path) {
		return
	}
	// Of two that say the same of the same field, the first one counts.
	text := err.Path + "\x00" + err.Err.Error()
	if _, dup := e.seen[text]; dup {
		return
	}
	if err.File != "" {
		e.loaded = e.loaded.with(err.Path)
	}
	if len(e.list) == maxErrors {
		e.dropped++
		return
	}
	if e.seen == nil {
		e.seen = make(map[string]struct{})
	}
	e.seen[text] = struct{}{}
	e.list = append(e.list, err)
}

// Len tells how many errors there are.
func (e *Errors) Len() int { return len(e.list) + e.dropped }

// Err joins what was reported, nil if nothing was.
func (e *Errors) Err() error {
	if len(e.list) == 0 {
		return nil
	}
	if e.dropped == 0 {
		return errors.Join(e.list...)
	}
	return errors.Join(append(slices.Clip(e.list),
		fmt.Errorf("and %d more errors", e.dropped))...)
}

// Flatten takes joined errors apart, in their order. An error that isn't an [*Error] becomes one
// without a path; one that wraps a single Error with a text of its own stays whole, as only its
// author knows where the text belongs.
func Flatten(err error) []*Error {
	switch x := err.(type) { //nolint:errorlint // the shape of this very error is what is asked for
	case nil:
		return nil
	case *Error:
		return []*Error{x}
	case interface{ Unwrap() []error }:
		var out []*Error
		for _, one := range x.Unwrap() {
			out = append(out, Flatten(one)...)
		}
		return out
	}
	return []*Error{{Err: err}}
}
