package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// Unknown says what becomes of fields and enum values that the message doesn't have.
type Unknown uint8

// The three ways, by Envoy's flags. Static configuration is rejected, or with
// --allow-unknown-static-fields warned of; dynamic one is warned of, or rejected with
// --reject-unknown-dynamic-fields, or ignored with --ignore-unknown-dynamic-fields.
const (
	RejectUnknown Unknown = iota
	WarnUnknown
	IgnoreUnknown
)

// Format is how a message is written down.
type Format uint8

// The formats, in the order of their extensions: .json, .yaml or .yml, .pb, .pb_text.
const (
	JSON Format = iota
	YAML
	Binary
	Text
)

// FormatOf tells the format by the end of a file's name, in any case; a name that says nothing is
// JSON, as in Envoy.
func FormatOf(name string) Format {
	name = strings.ToLower(name)
	switch {
	case strings.HasSuffix(name, ".yaml"), strings.HasSuffix(name, ".yml"):
		return YAML
	case strings.HasSuffix(name, ".pb"):
		return Binary
	case strings.HasSuffix(name, ".pb_text"):
		return Text
	}
	return JSON
}

// MaxFileBytes bounds a configuration file.
const MaxFileBytes = 256 << 20

// Load reads a file into msg, in the format that its name tells. See [Parse].
func Load(name string, msg proto.Message, unknown Unknown) (warnings []error, err error) {
	data, err := readFile(name, MaxFileBytes)
	if err != nil {
		return nil, &Error{File: name, Err: err}
	}
	return Parse(name, FormatOf(name), data, msg, unknown)
}

// IsNull tells whether a text holds no value at all, only comments perhaps. Parse reads it as an empty
// message, which not every reader means.
func IsNull(f Format, data []byte) bool {
	if f != YAML {
		return false
	}
	root, _, err := parseYAML(data)
	return err == nil && root.kind == kindNull
}

// Parse reads text or bytes into msg, which should be empty. The name only serves errors. The error
// joins everything that is wrong; msg then holds the rest, good for finding more that is wrong and
// for nothing else. Warnings are unknown fields under WarnUnknown, and keys that occur twice.
//
// Neither the constraints of the message nor those of what is packed in it are checked.
func Parse(name string, f Format, data []byte, msg proto.Message, unknown Unknown) (warnings []error, err error) {
	var errs Errors
	warn := func(e *Error) {
		if len(warnings) < maxErrors {
			warnings = append(warnings, e)
		}
	}
	switch f {
	case YAML, JSON:
		parse := parseJSON
		if f == YAML {
			parse = parseYAML
		}
		root, duplicates, err := parse(data)
		if err != nil {
			return nil, inFile(name, err)
		}
		for _, e := range duplicates {
			warn(&Error{File: name, Line: e.line, Err: fmt.Errorf("key %q occurs twice; the later one counts", e.name)})
		}
		d := decoder{unknown: unknown, file: name, errs: &errs, warn: warn}
		if root.kind != kindNull || f == JSON {
			d.message(nil, root, msg.ProtoReflect(), 0)
		}
		return warnings, errs.Err()
	case Text:
		err = prototext.UnmarshalOptions{AllowPartial: true, DiscardUnknown: unknown != RejectUnknown}.Unmarshal(data, msg)
	case Binary:
		err = proto.UnmarshalOptions{AllowPartial: true}.Unmarshal(data, msg)
	}
	if err != nil {
		return nil, inFile(name, &Error{Err: fmt.Errorf("is not a %s: %w", msg.ProtoReflect().Descriptor().FullName(), err)})
	}
	unknowns, err := CheckUnknown(msg, unknown)
	return unknowns, inFile(name, err)
}

// inFile says of errors which file they are about.
func inFile(name string, err error) error {
	var errs Errors
	for _, e := range Flatten(err) {
		placed := *e
		placed.File = name
		errs.add(&placed)
	}
	return errs.Err()
}

// readFile reads a whole file that may not be larger than limit, and says what is wrong without the
// name, which is the caller's to add.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, bare(err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("is larger than %d bytes", limit)
	}
	return data, nil
}

func bare(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
