package log

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// appendAttr renders one attribute behind a message: a blank, its name, =, its value, quoted where
// it would otherwise be taken for more than one thing.
func appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			b = appendAttr(b, prefix, inner)
		}
		return b
	}
	if a.Equal(slog.Attr{}) {
		return b
	}
	b = append(b, ' ')
	b = append(b, prefix...)
	b = append(b, a.Key...)
	b = append(b, '=')
	return appendText(b, valueText(v))
}

func valueText(v slog.Value) string {
	if v.Kind() == slog.KindTime {
		return v.Time().Format(time.RFC3339Nano)
	}
	if v.Kind() != slog.KindAny {
		return v.String()
	}
	if err, ok := v.Any().(error); ok {
		return err.Error()
	}
	return fmt.Sprint(v.Any())
}

func appendText(b []byte, s string) []byte {
	if s == "" || strings.ContainsAny(s, " \"=\t\r\n\\") || strings.IndexFunc(s, unprintable) >= 0 {
		return strconv.AppendQuote(b, s)
	}
	return append(b, s...)
}

func unprintable(r rune) bool { return !strconv.IsPrint(r) }
