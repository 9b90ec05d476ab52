// Command sidecar is the data plane of a service mesh: it takes Envoy's flags and bootstrap.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"sidecar/internal/config"
	"sidecar/internal/log"
	"sidecar/internal/server"
	"sidecar/internal/server/wasmcli"
)

func main() { os.Exit(run(context.Background(), os.Args, os.Stdout, os.Stderr)) }

// run is main with its surroundings as arguments. It returns the exit code: 0, or 1 for anything
// that is wrong, as Envoy does.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 1 && args[1] == "wasm" {
		return wasmcli.Main(ctx, args[2:], stdout, stderr)
	}
	c, err := parseFlags(args[1:])
	if err != nil {
		fmt.Fprintln(stderr, err)
		if _, ok := errors.AsType[*argumentError](err); ok {
			fmt.Fprintf(stderr, "\nFor the flags: %s --help\n", args[0])
		}
		return 1
	}
	switch {
	case c.help:
		usage(stdout, args[0])
		return 0
	case c.version:
		fmt.Fprintf(stdout, "\n%s  version: %s\n\n", args[0], buildVersion())
		return 0
	case c.hotRestartVersion:
		fmt.Fprintln(stdout, "disabled")
		return 0
	}
	if err := openLog(c, stderr); err != nil {
		fmt.Fprintf(stderr, "error: log file: %v\n", err)
		return 1
	}
	defer flush(ctx, c.Logs)
	return serve(ctx, c, stdout, stderr)
}

// openLog makes the log from the flags.
func openLog(c *commandLine, stderr io.Writer) error {
	if c.LogPath != "" {
		file, err := log.OpenFile(c.LogPath)
		if err != nil {
			return err
		}
		c.LogFile, stderr = file, file
	}
	c.Logs = log.New(stderr)
	c.Logs.SetFormat(c.LogFormat)
	level, err := log.ParseLevel(c.LogLevel)
	if err != nil {
		return err
	}
	c.Logs.SetLevel(level)
	for _, one := range c.componentLevels {
		if err := c.Logs.SetComponentLevel(one.Name, one.Level); err != nil {
			return err
		}
	}
	return nil
}

func serve(ctx context.Context, c *commandLine, stdout, stderr io.Writer) int {
	logger := c.Logs.Component("main")
	for _, reason := range c.NoEffect {
		logger.Warn(reason)
	}
	if c.EnableCoreDump {
		if err := enableCoreDump(); err != nil {
			logger.Warn("core dumps stay off", "err", err)
		}
	}
	c.Version = buildVersion()
	c.WasmCompiler = []string{"/proc/self/exe", "wasm", "compile"}
	err := server.Run(ctx, &c.Options)
	if err == nil {
		if c.Mode == server.Validate {
			fmt.Fprintf(stdout, "configuration '%s' OK\n", c.ConfigPath)
		}
		return 0
	}
	// One line for each thing that is wrong. They go to standard error even if the log is a file or
	// off: whoever started the process looks there.
	flush(ctx, c.Logs)
	for _, one := range config.Flatten(err) {
		fmt.Fprintf(stderr, "%s: error: %v\n", "sidecar", one)
	}
	return 1
}

// flush waits for the log, but not for ever: its disk may be gone.
func flush(ctx context.Context, logs *log.Logs) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	logs.Flush(ctx)
}
