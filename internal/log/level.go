package log

import (
	"fmt"
	"log/slog"
	"math"
)

// The levels, Envoy's seven in terms of slog.
const (
	LevelTrace    = slog.LevelDebug - 4
	LevelDebug    = slog.LevelDebug
	LevelInfo     = slog.LevelInfo
	LevelWarning  = slog.LevelWarn
	LevelError    = slog.LevelError
	LevelCritical = slog.LevelError + 4
	LevelOff      = slog.Level(math.MaxInt32)
)

// levelNames are in the order of the levels; the short form of each is its first letter, in upper
// case.
var levelNames = [...]struct {
	level slog.Level
	name  string
}{
	{LevelTrace, "trace"},
	{LevelDebug, "debug"},
	{LevelInfo, "info"},
	{LevelWarning, "warning"},
	{LevelError, "error"},
	{LevelCritical, "critical"},
	{LevelOff, "off"},
}

// ParseLevel reads the name of a level; "warn" is one too.
func ParseLevel(s string) (slog.Level, error) {
	if s == "warn" {
		return LevelWarning, nil
	}
	for _, l := range levelNames {
		if l.name == s {
			return l.level, nil
		}
	}
	return 0, fmt.Errorf("invalid log level specified '%s'", s)
}

// LevelName gives the name of a level, of the one below where it lies between two.
func LevelName(l slog.Level) string {
	name := levelNames[0].name
	for _, known := range levelNames {
		if l >= known.level {
			name = known.name
		}
	}
	return name
}
