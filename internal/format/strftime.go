package format

import (
	"strconv"
	"strings"
	"time"
)

// clock is a compiled strftime format, with Envoy's extensions: %f and %1f to %9f for the fraction
// of the second, %E3S, %E*S and the like. An unknown conversion is printed as it stands, as Envoy
// does.
type clock struct {
	parts []clockPart
	local bool
}

type clockPart struct {
	lit    string
	verb   byte // 0: lit alone
	digits int  // of a fraction; -1: as many as are not zero
}

// The verbs of clockPart that are not strftime's own letter.
const (
	verbFraction = 'f'
	verbSeconds  = '\x01' // %E3S
	verbYear4    = '\x02' // %E4Y
	verbColon    = '\x03' // %Ez
	verbT        = '\x04' // %ET: the letter
)

// defaultClock prints 2018-12-18T01:50:34.123Z.
const defaultClock = "%Y-%m-%dT%H:%M:%E3SZ"

func compileClock(s string, local bool) (*clock, error) {
	c := &clock{local: local}
	if s == "" {
		s = defaultClock
	}
	lit := ""
	add := func(p clockPart) {
		p.lit, lit = lit, ""
		c.parts = append(c.parts, p)
	}
	for i := 0; i < len(s); {
		if s[i] != '%' || i+1 == len(s) {
			lit += s[i : i+1] //nolint:perfsprint // a few bytes, at compile time
			i++
			continue
		}
		p, n := clockVerb(s[i+1:])
		switch {
		case n == 0:
			lit += s[i : i+2]
			i += 2
		case p.verb == 'n' || p.verb == 't':
			return nil, Error("Invalid header configuration. Format string contains newline.")
		case p.verb == '%', p.verb == verbT:
			lit += s[i+n : i+n+1]
			i += 1 + n
		default:
			add(p)
			i += 1 + n
		}
	}
	add(clockPart{})
	return c, nil
}

// clockVerb reads what follows a percent sign and returns its length, 0 for what it doesn't know.
func clockVerb(s string) (clockPart, int) {
	switch c := s[0]; {
	case strings.IndexByte("YmdHMSyjeIpPaAbBhDTRFCGgVuUWwrxXklczZs%nt", c) >= 0:
		return clockPart{verb: c}, 1
	case c == 'f':
		return clockPart{verb: verbFraction, digits: 9}, 1
	case c >= '1' && c <= '9' && len(s) > 1 && s[1] == 'f':
		return clockPart{verb: verbFraction, digits: int(c - '0')}, 2
	case c == 'E' && len(s) > 1:
		return extendedVerb(s)
	}
	return clockPart{}, 0
}

func extendedVerb(s string) (clockPart, int) {
	switch {
	case s[1] == 'T':
		return clockPart{verb: verbT}, 2
	case s[1] == 'z':
		return clockPart{verb: verbColon}, 2
	case strings.HasPrefix(s, "E4Y"):
		return clockPart{verb: verbYear4}, 3
	case len(s) < 3 || s[2] != 'S' && s[2] != 'f':
		return clockPart{}, 0
	case s[1] == '*':
		if s[2] == 'S' {
			return clockPart{verb: verbSeconds, digits: -1}, 3
		}
		return clockPart{verb: verbFraction, digits: -1}, 3
	case s[1] >= '0' && s[1] <= '9':
		p := clockPart{verb: verbFraction, digits: int(s[1] - '0')}
		if s[2] == 'S' {
			p.verb = verbSeconds
		}
		return p, 3
	}
	return clockPart{}, 0
}

// append prints t.
func (c *clock) append(dst []byte, t time.Time) []byte {
	if c.local {
		t = t.Local()
	} else {
		t = t.UTC()
	}
	year, month, day := t.Date()
	hour, minute, sec := t.Clock()
	for i := range c.parts {
		p := &c.parts[i]
		dst = append(dst, p.lit...)
		switch p.verb {
		case 0:
		case 'Y':
			if year < 1000 || year > 9999 {
				dst = strconv.AppendInt(dst, int64(year), 10)
				break
			}
			dst = pad2(pad2(dst, year/100), year%100)
		case 'm':
			dst = pad2(dst, int(month))
		case 'd':
			dst = pad2(dst, day)
		case 'H':
			dst = pad2(dst, hour)
		case 'M':
			dst = pad2(dst, minute)
		case 'S':
			dst = pad2(dst, sec)
		case verbSeconds:
			dst = pad2(dst, sec)
			if n := len(dst); p.digits != 0 {
				dst = appendFraction(append(dst, '.'), t.Nanosecond(), p.digits)
				if len(dst) == n+1 {
					dst = dst[:n]
				}
			}
		case verbFraction:
			dst = appendFraction(dst, t.Nanosecond(), p.digits)
		case 's':
			dst = strconv.AppendInt(dst, t.Unix(), 10)
		default:
			dst = appendRare(dst, p.verb, t)
		}
	}
	return dst
}

// appendRare prints the conversions that log formats seldom have.
func appendRare(dst []byte, verb byte, t time.Time) []byte {
	switch verb {
	case verbYear4:
		return pad(dst, t.Year(), 4, '0')
	case verbColon:
		return t.AppendFormat(dst, "-07:00")
	case 'z':
		return t.AppendFormat(dst, "-0700")
	case 'Z':
		return t.AppendFormat(dst, "MST")
	case 'y':
		return pad(dst, t.Year()%100, 2, '0')
	case 'C':
		return pad(dst, t.Year()/100, 2, '0')
	case 'j':
		return pad(dst, t.YearDay(), 3, '0')
	case 'e':
		return pad(dst, t.Day(), 2, ' ')
	case 'I':
		return pad(dst, hour12(t), 2, '0')
	case 'l':
		return pad(dst, hour12(t), 2, ' ')
	case 'k':
		return pad(dst, t.Hour(), 2, ' ')
	case 'p':
		return t.AppendFormat(dst, "PM")
	case 'P':
		return t.AppendFormat(dst, "pm")
	case 'a':
		return t.AppendFormat(dst, "Mon")
	case 'A':
		return t.AppendFormat(dst, "Monday")
	case 'b', 'h':
		return t.AppendFormat(dst, "Jan")
	case 'B':
		return t.AppendFormat(dst, "January")
	case 'D', 'x':
		return t.AppendFormat(dst, "01/02/06")
	case 'T', 'X':
		return t.AppendFormat(dst, "15:04:05")
	case 'R':
		return t.AppendFormat(dst, "15:04")
	case 'r':
		return t.AppendFormat(dst, "03:04:05 PM")
	case 'F':
		return t.AppendFormat(dst, "2006-01-02")
	case 'c':
		return t.AppendFormat(dst, "Mon Jan _2 15:04:05 2006")
	}
	return appendWeek(dst, verb, t)
}

// appendWeek prints the conversions that count weeks and weekdays.
func appendWeek(dst []byte, verb byte, t time.Time) []byte {
	weekday := int(t.Weekday())
	switch verb {
	case 'w':
		return pad(dst, weekday, 1, '0')
	case 'u':
		return pad(dst, (weekday+6)%7+1, 1, '0')
	case 'U':
		return pad(dst, (t.YearDay()+6-weekday)/7, 2, '0')
	case 'W':
		return pad(dst, (t.YearDay()+6-(weekday+6)%7)/7, 2, '0')
	}
	year, week := t.ISOWeek()
	switch verb {
	case 'G':
		return strconv.AppendInt(dst, int64(year), 10)
	case 'g':
		return pad(dst, year%100, 2, '0')
	case 'V':
		return pad(dst, week, 2, '0')
	}
	return dst
}

func hour12(t time.Time) int { return (t.Hour()+11)%12 + 1 }

// appendFraction prints the first digits of the nanoseconds; with -1 those up to the last that
// isn't zero.
func appendFraction(dst []byte, ns, digits int) []byte {
	var b [9]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + ns%10)
		ns /= 10
	}
	if digits < 0 {
		digits = len(b)
		for digits > 0 && b[digits-1] == '0' {
			digits--
		}
	}
	return append(dst, b[:digits]...)
}

// pad2 prints v < 100 with two digits.
func pad2(dst []byte, v int) []byte { return append(dst, byte('0'+v/10), byte('0'+v%10)) }

// pad prints v >= 0 with at least width digits.
func pad(dst []byte, v, width int, with byte) []byte {
	for limit := 10; width > 1; width, limit = width-1, limit*10 {
		if v < limit {
			for range width - 1 {
				dst = append(dst, with)
			}
			break
		}
	}
	return strconv.AppendInt(dst, int64(v), 10)
}
