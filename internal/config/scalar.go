package config

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// scalar reads one value that isn't a message, a list or a map.
func (d *decoder) scalar(p *Path, n *node, fd protoreflect.FieldDescriptor) (v protoreflect.Value, ok bool) {
	var err error
	switch fd.Kind() {
	case protoreflect.BoolKind:
		v, err = d.boolean(n)
	case protoreflect.StringKind:
		v, err = text(n)
	case protoreflect.BytesKind:
		v, err = base64Bytes(n)
	case protoreflect.EnumKind:
		return d.enum(p, n, fd)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		v, err = d.float(n, fd.Kind())
	default:
		v, err = integer(n, fd.Kind())
	}
	if err != nil {
		d.fail(p, n.line, "%w", err)
		return v, false
	}
	return v, true
}

func (d *decoder) boolean(n *node) (protoreflect.Value, error) {
	if n.kind == kindBool {
		return protoreflect.ValueOfBool(n.truth), nil
	}
	if n.kind == kindText && (n.text == "true" || n.text == "false") {
		d.lenient++
		return protoreflect.ValueOfBool(n.text == "true"), nil
	}
	return protoreflect.Value{}, fmt.Errorf("must be true or false, not %s", n.describe())
}

func text(n *node) (protoreflect.Value, error) {
	if n.kind != kindText {
		return protoreflect.Value{}, fmt.Errorf("must be a string, not %s; in YAML, quote it", n.describe())
	}
	if !utf8.ValidString(n.text) {
		if n.hidden {
			return protoreflect.Value{}, errors.New("is not valid UTF-8")
		}
		return protoreflect.Value{}, fmt.Errorf("is not valid UTF-8: %q", n.text)
	}
	return protoreflect.ValueOfString(n.text), nil
}

// base64Bytes takes the standard and the URL alphabet, with or without padding.
func base64Bytes(n *node) (protoreflect.Value, error) {
	if n.kind != kindText {
		return protoreflect.Value{}, fmt.Errorf("must be a base64 string, not %s", n.describe())
	}
	enc := base64.StdEncoding
	if strings.ContainsAny(n.text, "-_") {
		enc = base64.URLEncoding
	}
	if len(n.text)%4 != 0 {
		enc = enc.WithPadding(base64.NoPadding)
	}
	b, err := enc.DecodeString(n.text)
	if err != nil {
		return protoreflect.Value{}, fmt.Errorf("is not base64: %w", err)
	}
	return protoreflect.ValueOfBytes(b), nil
}

func (d *decoder) enum(p *Path, n *node, fd protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	values := fd.Enum().Values()
	switch n.kind {
	case kindText:
		if v := values.ByName(protoreflect.Name(n.text)); v != nil {
			return protoreflect.ValueOfEnum(v.Number()), true
		}
		upper := strings.ReplaceAll(strings.ToUpper(n.text), "-", "_")
		if v := values.ByName(protoreflect.Name(upper)); v != nil {
			d.lenient++
			return protoreflect.ValueOfEnum(v.Number()), true
		}
		d.unknownThing(p, n.line, "unknown value %q; %s has %s", n.text, fd.Enum().FullName(), enumNames(values))
		return protoreflect.Value{}, false
	case kindNumber:
		if i, err := parseInt(n.text, 32); err == nil {
			return protoreflect.ValueOfEnum(protoreflect.EnumNumber(i)), true
		}
	case kindNull:
		if fd.Enum().FullName() == "google.protobuf.NullValue" {
			return protoreflect.ValueOfEnum(0), true
		}
	default:
	}
	d.fail(p, n.line, "must be a name of %s, not %s", fd.Enum().FullName(), n.describe())
	return protoreflect.Value{}, false
}

func enumNames(values protoreflect.EnumValueDescriptors) string {
	const most = 16
	var names []string
	for i := range min(values.Len(), most) {
		names = append(names, string(values.Get(i).Name()))
	}
	if values.Len() > most {
		names = append(names, "...")
	}
	return strings.Join(names, ", ")
}

func integer(n *node, k protoreflect.Kind) (protoreflect.Value, error) {
	bits, unsigned := 64, false
	switch k {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		bits = 32
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		bits, unsigned = 32, true
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		unsigned = true
	default:
	}
	if n.kind != kindNumber && (n.kind != kindText || !isNumber(n.text)) {
		return protoreflect.Value{}, fmt.Errorf("must be an integer, not %s", n.describe())
	}
	if unsigned {
		u, err := parseUint(n.text, bits)
		if err != nil {
			return protoreflect.Value{}, fmt.Errorf("must be an integer from 0 to %d, not %s",
				uint64(math.MaxUint64)>>(64-bits), n.text)
		}
		if bits == 32 {
			return protoreflect.ValueOfUint32(uint32(u)), nil
		}
		return protoreflect.ValueOfUint64(u), nil
	}
	i, err := parseInt(n.text, bits)
	if err != nil {
		return protoreflect.Value{}, fmt.Errorf("must be an integer of %d bits, not %s", bits, n.text)
	}
	if bits == 32 {
		return protoreflect.ValueOfInt32(int32(i)), nil
	}
	return protoreflect.ValueOfInt64(i), nil
}

func parseInt(s string, bits int) (int64, error) { return strconv.ParseInt(wholeNumber(s), 10, bits) }

func parseUint(s string, bits int) (uint64, error) {
	s = wholeNumber(s)
	if s == "-0" {
		s = "0"
	}
	return strconv.ParseUint(s, 10, bits)
}

// wholeNumber writes 1.0 and 1e3 without point and exponent, exactly; what isn't whole stays as it
// is, for strconv to refuse.
func wholeNumber(s string) string {
	if !strings.ContainsAny(s, ".eE") || len(s) > 64 {
		return s
	}
	if _, exp, ok := strings.Cut(strings.ToLower(s), "e"); ok {
		// A big exponent would make a number of as many digits.
		if e, err := strconv.Atoi(exp); err != nil || e > 40 || e < -40 {
			return s
		}
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok || !r.IsInt() {
		return s
	}
	return r.Num().String()
}

func (d *decoder) float(n *node, k protoreflect.Kind) (protoreflect.Value, error) {
	bits := 64
	if k == protoreflect.FloatKind {
		bits = 32
	}
	f, ok := 0.0, false
	switch n.kind {
	case kindNumber:
		f, ok = parseFloat(n.text, bits)
	case kindText:
		switch n.text {
		case "NaN":
			f, ok = math.NaN(), true
		case "Infinity":
			f, ok = math.Inf(1), true
		case "-Infinity":
			f, ok = math.Inf(-1), true
		default:
			// YAML writes .5 and +1.5 too, and a plain 1.5 arrives here as a text.
			number := strings.TrimPrefix(n.text, "+")
			if strings.HasPrefix(number, ".") {
				number = "0" + number
			}
			if number != n.text {
				d.lenient++
			}
			if isNumber(number) {
				f, ok = parseFloat(number, bits)
			}
		}
	default:
	}
	if !ok {
		return protoreflect.Value{}, fmt.Errorf("must be a number, not %s", n.describe())
	}
	if bits == 32 {
		return protoreflect.ValueOfFloat32(float32(f)), nil
	}
	return protoreflect.ValueOfFloat64(f), nil
}

func parseFloat(s string, bits int) (float64, bool) {
	f, err := strconv.ParseFloat(s, bits)
	return f, err == nil
}

// isNumber tells whether a text is a number of JSON, so without blanks, hex, underscores.
func isNumber(s string) bool {
	if s == "" || (s[0] != '-' && (s[0] < '0' || s[0] > '9')) {
		return false
	}
	if last := s[len(s)-1]; last < '0' || last > '9' {
		return false
	}
	return json.Valid([]byte(s))
}

// describe names a value for an error message: its type, and the value itself if it is short.
func (n *node) describe() string {
	const most = 40
	switch {
	case n.hidden:
	case n.kind == kindBool:
		return strconv.FormatBool(n.truth)
	case n.kind == kindNumber && len(n.text) <= most:
		return n.text
	case n.kind == kindText && len(n.text) <= most:
		return strconv.Quote(n.text)
	}
	return n.kind.String()
}
