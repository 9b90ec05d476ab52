package cel

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// known tells whether there is a function of a name, by the number of its arguments, with what it is a
// member of counted as one.
func known(name string, args int) bool {
	switch name {
	case "size", "int", "uint", "double", "string", "bytes", "bool", "type", "dyn", "duration", "timestamp",
		"lowerAscii", "upperAscii", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek",
		"getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds":
		return args == 1
	case "startsWith", "endsWith", "contains", "matches":
		return args == 2
	}
	return false
}

func (e *eval) call(name string, args []any) (any, error) {
	if len(args) == 2 {
		return e.textCall(name, args[0], args[1])
	}
	v := args[0]
	if s, ok := v.(string); ok {
		if err := e.spend(len(s) / 64); err != nil {
			return nil, err
		}
	}
	switch name {
	case "dyn":
		return v, nil
	case "size":
		return size(v)
	case "int":
		return toInt(v)
	case "uint":
		return toUint(v)
	case "double":
		return toDouble(v)
	case "string":
		return toString(v)
	case "bytes":
		switch v := v.(type) {
		case []byte:
			return v, nil
		case string:
			return []byte(v), nil
		}
	case "bool":
		switch v := v.(type) {
		case bool:
			return v, nil
		case string:
			return strconv.ParseBool(v)
		}
	case "type":
		return typeName(v), nil
	case "duration":
		switch v := v.(type) {
		case time.Duration:
			return v, nil
		case string:
			return time.ParseDuration(v)
		}
	case "timestamp":
		switch v := v.(type) {
		case time.Time:
			return v, nil
		case string:
			return time.Parse(time.RFC3339Nano, v)
		case int64:
			return time.Unix(v, 0), nil
		}
	case "lowerAscii", "upperAscii":
		if s, ok := v.(string); ok {
			return ascii(s, name == "upperAscii"), nil
		}
	default:
		return part(name, v)
	}
	return nil, errNoType
}

func (e *eval) textCall(name string, a, b any) (any, error) {
	s, ok1 := a.(string)
	x, ok2 := b.(string)
	if !ok1 || !ok2 {
		return nil, errNoType
	}
	if err := e.spend(len(s) / 64); err != nil {
		return nil, err
	}
	switch name {
	case "startsWith":
		return strings.HasPrefix(s, x), nil
	case "endsWith":
		return strings.HasSuffix(s, x), nil
	case "contains":
		return strings.Contains(s, x), nil
	}
	return e.matches(s, x)
}

// maxRegex bounds a pattern, which is compiled at each call: it may be the result of a computation.
const maxRegex = 4 << 10

func (e *eval) matches(s, pattern string) (any, error) {
	if len(pattern) > maxRegex {
		return nil, errors.New("the regular expression is too long")
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, err
	}
	// At worst a match goes through the whole program for each byte of the text.
	if err := e.spend(len(prog.Inst) + len(s)*len(prog.Inst)/64); err != nil {
		return nil, err
	}
	r, err := regexp.Compile(pattern) //nolint:forbidigo // CEL searches; package match is for whole texts
	if err != nil {
		return nil, err
	}
	return r.MatchString(s), nil
}

func ascii(s string, upper bool) string {
	b := []byte(s)
	for i, c := range b {
		switch {
		case upper && 'a' <= c && c <= 'z':
			b[i] = c - 32
		case !upper && 'A' <= c && c <= 'Z':
			b[i] = c + 32
		}
	}
	return string(b)
}

func size(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return int64(utf8.RuneCountInString(v)), nil
	case []byte:
		return int64(len(v)), nil
	case []any:
		return int64(len(v)), nil
	case map[string]any:
		return int64(len(v)), nil
	}
	return nil, errNoType
}

func toInt(v any) (any, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case uint64:
		if v > math.MaxInt64 {
			return nil, errRange
		}
		return int64(v), nil
	case float64:
		if !(v > -math.MaxInt64 && v < math.MaxInt64) {
			return nil, errRange
		}
		return int64(v), nil
	case string:
		return strconv.ParseInt(v, 10, 64)
	case time.Time:
		return v.Unix(), nil
	}
	return nil, errNoType
}

func toUint(v any) (any, error) {
	switch v := v.(type) {
	case uint64:
		return v, nil
	case int64:
		if v < 0 {
			return nil, errRange
		}
		return uint64(v), nil
	case float64:
		if !(v >= 0 && v < math.MaxUint64) {
			return nil, errRange
		}
		return uint64(v), nil
	case string:
		return strconv.ParseUint(v, 10, 64)
	}
	return nil, errNoType
}

func toDouble(v any) (any, error) {
	switch v := v.(type) {
	case float64:
		return v, nil
	case int64:
		return float64(v), nil
	case uint64:
		return float64(v), nil
	case string:
		return strconv.ParseFloat(v, 64)
	}
	return nil, errNoType
}

func toString(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case []byte:
		if !utf8.Valid(v) {
			return nil, errors.New("the bytes are no text")
		}
		return string(v), nil
	case int64, uint64, bool:
		return fmt.Sprint(v), nil
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	case time.Duration:
		return strconv.FormatFloat(v.Seconds(), 'f', -1, 64) + "s", nil
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano), nil
	}
	return nil, errNoType
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null_type"
	case bool:
		return "bool"
	case int64:
		return "int"
	case uint64:
		return "uint"
	case float64:
		return "double"
	case string:
		return "string"
	case []byte:
		return "bytes"
	case []any:
		return "list"
	case map[string]any:
		return "map"
	case time.Duration:
		return "google.protobuf.Duration"
	}
	return "google.protobuf.Timestamp"
}

// part is an accessor of a duration or a timestamp.
func part(name string, v any) (any, error) {
	if d, ok := v.(time.Duration); ok {
		switch name {
		case "getHours":
			return int64(d / time.Hour), nil
		case "getMinutes":
			return int64(d / time.Minute), nil
		case "getSeconds":
			return int64(d / time.Second), nil
		case "getMilliseconds":
			return int64(d / time.Millisecond), nil
		}
		return nil, errNoType
	}
	t, ok := v.(time.Time)
	if !ok {
		return nil, errNoType
	}
	t = t.UTC()
	n := map[string]int{
		"getFullYear": t.Year(), "getMonth": int(t.Month()) - 1, "getDate": t.Day(), "getDayOfMonth": t.Day() - 1,
		"getDayOfWeek": int(t.Weekday()), "getDayOfYear": t.YearDay() - 1, "getHours": t.Hour(),
		"getMinutes": t.Minute(), "getSeconds": t.Second(), "getMilliseconds": t.Nanosecond() / 1e6,
	}[name]
	return int64(n), nil
}
