package mutate

import (
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/match"
)

// OptionFields accounts for HeaderValueOption, ValueFields for HeaderValue inside of it.
var (
	OptionFields = config.Fields[*corev3.HeaderValueOption]{
		Used: "header append append_action keep_empty_value",
	}
	ValueFields = config.Fields[*corev3.HeaderValue]{
		Used: "key value", Refused: "raw_value",
	}
)

// Formatter is a compiled format: it appends text made from a stream's record. *format.Formatter is
// one.
type Formatter interface {
	Append(dst []byte, info *stream.Info) []byte
	// Constant returns the text of a format without operators.
	Constant() (string, bool)
}

// CompileFormat compiles the text of a header value; values that are not known must come out empty.
type CompileFormat func(text string) (Formatter, error)

// action is what becomes of a header that is there already.
type action uint8

const (
	appendAlways action = iota
	addIfAbsent
	overwriteOrAdd
	overwriteIfExists
)

type addition struct {
	format    Formatter // nil: constant
	name      string
	constant  string
	id        header.ID
	action    action
	keepEmpty bool
}

// Headers is a compiled set of changes. It is immutable; nil changes nothing.
type Headers struct {
	remove []string
	add    []addition
}

// Compile reads the list at p.field+"_to_add" and "_to_remove". It returns nil if there is nothing
// to change.
func Compile(p *config.Path, field string, add []*corev3.HeaderValueOption, remove []string,
	format CompileFormat, errs *config.Errors,
) *Headers {
	if len(add) == 0 && len(remove) == 0 {
		return nil
	}
	h := &Headers{}
	for i, name := range remove {
		lower := match.ToLower(name)
		if lower == "" || lower[0] == ':' || lower == "host" {
			errs.Add(p.Field(field+"_to_remove").Index(i), ":-prefixed or host headers may not be removed")
		}
		h.remove = append(h.remove, lower)
	}
	for i, o := range add {
		a, err := compileAddition(p.Field(field+"_to_add").Index(i), o, format, errs)
		if err != nil {
			errs.Addf(p.Field(field+"_to_add").Index(i).Field("header"), "%w", err)
			continue
		}
		h.add = append(h.add, a)
	}
	return h
}

func compileAddition(p *config.Path, o *corev3.HeaderValueOption, format CompileFormat,
	errs *config.Errors,
) (addition, error) {
	OptionFields.Check(p, o, errs)
	ValueFields.Check(p.Field("header"), o.GetHeader(), errs)
	name := match.ToLower(o.GetHeader().GetKey())
	a := addition{name: name, id: header.Lookup(name), keepEmpty: o.GetKeepEmptyValue()}
	if name == "" {
		return a, errors.New("key is required")
	}
	if name[0] == ':' || name == "host" {
		return a, errors.New(":-prefixed or host headers may not be modified")
	}
	var err error
	if a.action, err = actionOf(o); err != nil {
		return a, err
	}
	text := o.GetHeader().GetValue()
	if !strings.Contains(text, "%") {
		a.constant = text
		return a, nil
	}
	f, err := format(translate(text))
	if err != nil {
		return a, err
	}
	if c, ok := f.Constant(); ok {
		a.constant = c
	} else {
		a.format = f
	}
	return a, nil
}

// actionOf reads append_action, or the deprecated append in its place.
func actionOf(o *corev3.HeaderValueOption) (action, error) {
	if appended := o.GetAppend(); appended != nil { //nolint:staticcheck // old control planes send it
		if o.GetAppendAction() != corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			return 0, errors.New("Both append and append_action are set and it's not allowed") //nolint:staticcheck // Envoy's words
		}
		if !appended.GetValue() {
			return overwriteOrAdd, nil
		}
		return appendAlways, nil
	}
	switch o.GetAppendAction() {
	case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
		return appendAlways, nil
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		return addIfAbsent, nil
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		return overwriteOrAdd, nil
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return overwriteIfExists, nil
	}
	return 0, fmt.Errorf("append_action: unknown value %d", o.GetAppendAction())
}
