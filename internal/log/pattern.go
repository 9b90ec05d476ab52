package log

import (
	"log/slog"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// record is what a line is made of.
type record struct {
	time      time.Time
	level     slog.Level
	component string
	message   []byte
	file      string
	line      int
	function  string
}

// pattern is a compiled spdlog pattern: texts, each but the last followed by a flag.
type pattern struct{ parts []part }

type part struct {
	text string // in front of the flag
	flag byte   // 0: none
	pad  padding
}

type padding struct {
	width    int
	align    byte // '-' left, '=' centre, 0 right
	truncate bool
}

// maxWidth is spdlog's.
const maxWidth = 64

// fullPattern is what %+ stands for.
const fullPattern = "[%Y-%m-%d %H:%M:%S.%e] [%n] [%l] [%s:%#] %v"

func compilePattern(s string) *pattern {
	p := &pattern{}
	text := ""
	for {
		before, after, ok := strings.Cut(s, "%")
		text += before
		if !ok || after == "" {
			// A % at the end is dropped, as spdlog does.
			p.parts = append(p.parts, part{text: text})
			return p
		}
		pad, rest := parsePadding(after)
		if rest == "" {
			p.parts = append(p.parts, part{text: text})
			return p
		}
		flag := rest[0]
		s = rest[1:]
		switch {
		case flag == '%':
			text += "%"
		case flag == '+':
			s = fullPattern + s
		case flag == '^' || flag == '$':
			// The bounds of colour: none here, nor in Envoy when it writes to a file.
		case strings.IndexByte(flags, flag) < 0:
			text += "%" + string(flag)
		default:
			p.parts = append(p.parts, part{text: text, flag: flag, pad: pad})
			text = ""
		}
	}
}

// parsePadding reads what may stand between % and the flag: -8, =8, 8, and ! for cutting.
func parsePadding(s string) (padding, string) {
	var p padding
	rest := s
	if rest[0] == '-' || rest[0] == '=' {
		p.align, rest = rest[0], rest[1:]
	}
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	if digits == 0 {
		if p.align != 0 {
			return padding{}, rest
		}
		return padding{}, s
	}
	width, err := strconv.Atoi(rest[:digits])
	if err != nil || width > maxWidth {
		width = maxWidth
	}
	p.width, rest = width, rest[digits:]
	if rest != "" && rest[0] == '!' {
		p.truncate, rest = true, rest[1:]
	}
	return p, rest
}

func (p *pattern) append(b []byte, r *record) []byte {
	for i := range p.parts {
		part := &p.parts[i]
		b = append(b, part.text...)
		if part.flag == 0 {
			continue
		}
		start := len(b)
		b = appendFlag(b, part.flag, r)
		if part.pad.width > 0 {
			b = part.pad.apply(b, start)
		}
	}
	return b
}

// apply pads or cuts what was appended since start.
func (p padding) apply(b []byte, start int) []byte {
	size := utf8.RuneCount(b[start:])
	if size >= p.width {
		if p.truncate && size > p.width {
			return append(b[:start], string([]rune(string(b[start:]))[:p.width])...)
		}
		return b
	}
	left := p.width - size
	switch p.align {
	case '-':
		left = 0
	case '=':
		left /= 2
	}
	right := p.width - size - left
	text := string(b[start:])
	b = append(b[:start], strings.Repeat(" ", left)...)
	b = append(b, text...)
	return append(b, strings.Repeat(" ", right)...)
}

// flags are those that appendFlag knows.
const flags = "v_jnlLtPaAbBhcCYDxmdHIMSefFEpTXrRzgs@#!uioO"

// appendFlag renders one flag. Times are UTC, as Envoy's.
func appendFlag(b []byte, flag byte, r *record) []byte {
	switch flag {
	case 'v':
		return append(b, r.message...)
	case '_':
		return append(b, strings.ReplaceAll(string(r.message), "\n", `\n`)...)
	case 'j':
		return appendJSON(b, r.message)
	case 'n':
		return append(b, r.component...)
	case 'l':
		return append(b, LevelName(r.level)...)
	case 'L':
		return append(b, strings.ToUpper(LevelName(r.level)[:1])...)
	case 't':
		return strconv.AppendInt(b, int64(unix.Gettid()), 10)
	case 'P':
		return strconv.AppendInt(b, int64(os.Getpid()), 10)
	case 'u', 'i', 'o', 'O':
		// Time since the line before, which lines written in parallel don't have.
		return append(b, '0')
	}
	if where, ok := appendSource(b, flag, r); ok {
		return where
	}
	return appendTime(b, flag, r.time.UTC())
}

func appendSource(b []byte, flag byte, r *record) ([]byte, bool) {
	switch flag {
	case 'g':
		return append(b, sourceFile(r.function, r.file)...), true
	case 's':
		return append(b, path.Base(r.file)...), true
	case '#':
		return strconv.AppendInt(b, int64(r.line), 10), true
	case '@':
		b = append(append(b, sourceFile(r.function, r.file)...), ':')
		return strconv.AppendInt(b, int64(r.line), 10), true
	case '!':
		return append(b, path.Base(r.function)...), true
	}
	return b, false
}

// sourceFile names a file by its package's path inside the module: where it was built is nobody's
// business.
func sourceFile(function, file string) string {
	base := path.Base(file)
	slash := strings.LastIndexByte(function, '/')
	dot := strings.IndexByte(function[slash+1:], '.')
	if slash < 0 || dot < 0 {
		return base
	}
	return strings.TrimPrefix(function[:slash+1+dot], "sidecar/") + "/" + base
}

func appendTime(b []byte, flag byte, t time.Time) []byte {
	switch flag {
	case 'e':
		return appendDigits(b, t.Nanosecond()/1e6, 3)
	case 'f':
		return appendDigits(b, t.Nanosecond()/1e3, 6)
	case 'F':
		return appendDigits(b, t.Nanosecond(), 9)
	case 'E':
		return strconv.AppendInt(b, t.Unix(), 10)
	}
	return t.AppendFormat(b, timeLayout(flag))
}

func timeLayout(flag byte) string {
	switch flag {
	case 'a':
		return "Mon"
	case 'A':
		return "Monday"
	case 'b', 'h':
		return "Jan"
	case 'B':
		return "January"
	case 'c':
		return "Mon Jan  2 15:04:05 2006"
	case 'C':
		return "06"
	case 'Y':
		return "2006"
	case 'D', 'x':
		return "01/02/06"
	case 'm':
		return "01"
	case 'd':
		return "02"
	case 'H':
		return "15"
	case 'I':
		return "03"
	case 'M':
		return "04"
	case 'S':
		return "05"
	case 'p':
		return "PM"
	case 'T', 'X':
		return "15:04:05"
	case 'r':
		return "03:04:05 PM"
	case 'R':
		return "15:04"
	case 'z':
		return "-07:00"
	}
	return ""
}

func appendDigits(b []byte, n, width int) []byte {
	s := strconv.Itoa(n)
	b = append(b, "000000000"[:width-len(s)]...)
	return append(b, s...)
}

// appendJSON writes the inside of a JSON string.
func appendJSON(b, message []byte) []byte {
	const hex = "0123456789abcdef"
	for _, r := range string(message) {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\t':
			b = append(b, '\\', 't')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}
