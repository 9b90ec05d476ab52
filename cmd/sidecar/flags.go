package main

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"sidecar/internal/config"
	"sidecar/internal/log"
	"sidecar/internal/server"
)

// commandLine is what the arguments say, before anything is opened.
type commandLine struct {
	server.Options
	componentLevels   []log.ComponentLevel
	help, version     bool
	hotRestartVersion bool
	rejectUnknown     bool // of two that are given, the stricter counts
	ignoreUnknown     bool
	restartEpoch      uint32
}

// flag is one flag. It takes a value if set isn't nil, else it is a switch.
type flag struct {
	name, short string
	value       string // what the value is, for the usage text
	repeated    bool
	help        string
	set         func(c *commandLine, value string) error
	on          func(c *commandLine)
	// noEffect is the reason why a flag that Envoy has changes nothing here; it is logged.
	noEffect string
	// unsupported is the reason why a flag that Envoy has is refused.
	unsupported string
}

func (f *flag) takesValue() bool { return f.value != "" }

// envoyText is an error in Envoy's words, which people search for, and which are not ours to polish.
type envoyText string

func (e envoyText) Error() string { return string(e) }

const (
	errAlreadySet = envoyText("Argument already set!")
	errNoMatch    = envoyText("Couldn't find match for argument")
	errNoValue    = envoyText("Missing a value for this argument!")
	errNoConfig   = envoyText("At least one of --config-path or --config-yaml should be non-empty")
)

// valueError is a value that isn't what its flag takes.
type valueError string

func (e valueError) Error() string {
	return "Couldn't read argument value from string '" + string(e) + "'"
}

// argumentError is a mistake in how an argument is written, answered with the usage.
type argumentError struct {
	argument string
	err      error
}

func (e *argumentError) Error() string {
	return fmt.Sprintf("PARSE ERROR: Argument: %s\n             %v", e.argument, e.err)
}

func (e *argumentError) Unwrap() error { return e.err }

// parseFlags reads the arguments after the program's name.
func parseFlags(args []string) (*commandLine, error) {
	c := &commandLine{Options: server.Options{
		Concurrency: runtime.GOMAXPROCS(0), LogLevel: "info", LogFormat: log.DefaultFormat,
		DrainTime: 600 * time.Second, ParentShutdownTime: 900 * time.Second,
		FileFlushInterval: 10 * time.Second, FileFlushMinBytes: 64 << 10,
		StaticUnknown: config.RejectUnknown, DynamicUnknown: config.WarnUnknown,
	}}
	table := flagTable()
	seen := map[string]bool{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" || arg == "--ignore_rest" {
			break
		}
		name, value, inline := strings.Cut(arg, "=")
		f := find(table, name)
		if f == nil || (inline && !f.takesValue()) {
			return nil, &argumentError{arg, errNoMatch}
		}
		if seen[f.name] && !f.repeated {
			return nil, &argumentError{f.display(), errAlreadySet}
		}
		seen[f.name] = true
		if f.takesValue() && !inline {
			if len(args) == 0 {
				return nil, &argumentError{f.display(), errNoValue}
			}
			value, args = args[0], args[1:]
		}
		if err := f.apply(c, value); err != nil {
			return nil, err
		}
	}
	return c, c.finish()
}

func find(table []flag, name string) *flag {
	for i := range table {
		f := &table[i]
		if name == "--"+f.name || (f.short != "" && name == "-"+f.short) {
			return f
		}
	}
	return nil
}

func (f *flag) display() string {
	if f.short != "" {
		return "-" + f.short + " (--" + f.name + ")"
	}
	return "(--" + f.name + ")"
}

func (f *flag) apply(c *commandLine, value string) error {
	if f.unsupported != "" {
		return fmt.Errorf("error: --%s is not supported: %s", f.name, f.unsupported)
	}
	if f.noEffect != "" {
		c.NoEffect = append(c.NoEffect, fmt.Sprintf("--%s has no effect: %s", f.name, f.noEffect))
	}
	if f.on != nil {
		f.on(c)
	}
	if f.set == nil {
		return nil
	}
	return f.set(c, value)
}

// finish checks what takes more than one flag to say.
func (c *commandLine) finish() error {
	if c.help || c.version || c.hotRestartVersion {
		return nil
	}
	if c.ConfigPath == "" && c.ConfigYAML == "" {
		return errNoConfig
	}
	if c.restartEpoch > 0 {
		return fmt.Errorf("error: --restart-epoch %d is not supported: %s", c.restartEpoch, noHotRestart)
	}
	switch {
	case c.rejectUnknown:
		c.DynamicUnknown = config.RejectUnknown
	case c.ignoreUnknown:
		c.DynamicUnknown = config.IgnoreUnknown
	}
	return nil
}

// addStatsTag reads a --stats-tag, with Envoy's checks: letters and digits are a name, and a value
// has no dot.
func (c *commandLine) addStatsTag(v string) error {
	name, value, ok := strings.Cut(v, ":")
	if !ok {
		return fmt.Errorf("error: misformatted stats-tag '%s'", v)
	}
	if strings.ContainsFunc(name, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return fmt.Errorf("error: misformatted stats-tag '%s' contains invalid char in '%s'", v, name)
	}
	if value == "" || strings.Contains(value, ".") {
		return fmt.Errorf("error: misformatted stats-tag '%s' contains invalid char in '%s'", v, value)
	}
	c.StatsTags = append(c.StatsTags, [2]string{name, value})
	return nil
}

// number reads an unsigned number of 32 bits into a place that store knows.
func number(name string, store func(c *commandLine, n uint32)) func(*commandLine, string) error {
	return func(c *commandLine, value string) error {
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return &argumentError{"(--" + name + ")", valueError(value)}
		}
		store(c, uint32(n))
		return nil
	}
}

// text stores the value where at points to.
func text(at func(c *commandLine) *string) func(*commandLine, string) error {
	return func(c *commandLine, value string) error {
		*at(c) = value
		return nil
	}
}

// oneOf takes one of a few words. The message is Envoy's.
func oneOf[T any](what string, words map[string]T, store func(c *commandLine, v T)) func(*commandLine, string) error {
	return func(c *commandLine, value string) error {
		v, ok := words[value]
		if !ok {
			return fmt.Errorf("error: unknown %s '%s'", what, value)
		}
		store(c, v)
		return nil
	}
}
