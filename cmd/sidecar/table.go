package main

import (
	"fmt"
	"slices"
	"time"

	"sidecar/internal/config"
	"sidecar/internal/log"
	"sidecar/internal/server"
)

// Reasons that several flags share.
const (
	noHotRestart = "there is no hot restart"
	envoysLocks  = "it concerns Envoy's own locks"
)

// flagTable is every flag of Envoy 1.40: taken, without effect, or refused.
func flagTable() []flag {
	return slices.Concat(configFlags(), logFlags(), processFlags(), otherFlags())
}

func configFlags() []flag {
	return []flag{
		{
			name: "config-path", short: "c", value: "path", help: "Path to the bootstrap: .yaml, .json, .pb or .pb_text",
			set: text(func(c *commandLine) *string { return &c.ConfigPath }),
		},
		{
			name: "config-yaml", value: "yaml", help: "Bootstrap as text, merged over what --config-path holds",
			set: text(func(c *commandLine) *string { return &c.ConfigYAML }),
		},
		{
			name: "mode", value: "mode", help: "serve (default), validate (check the configuration and end) or init_only",
			set: oneOf("mode", map[string]server.Mode{
				"serve": server.Serve, "validate": server.Validate, "init_only": server.InitOnly,
			}, func(c *commandLine, m server.Mode) { c.Mode = m }),
		},
		{
			name: "allow-unknown-static-fields", help: "Warn of unknown fields in the bootstrap instead of refusing it",
			on: func(c *commandLine) { c.StaticUnknown = config.WarnUnknown },
		},
		{
			name: "allow-unknown-fields", help: "The old name of --allow-unknown-static-fields",
			on: func(c *commandLine) { c.StaticUnknown = config.WarnUnknown },
		},
		{
			name: "reject-unknown-dynamic-fields", help: "Refuse resources with unknown fields",
			on: func(c *commandLine) { c.rejectUnknown = true },
		},
		{
			name: "ignore-unknown-dynamic-fields", help: "Don't even warn of unknown fields in resources",
			on: func(c *commandLine) { c.ignoreUnknown = true },
		},
		{
			name: "skip-deprecated-logs", help: "Deprecated fields are taken without a warning anyway",
			on: func(c *commandLine) { c.SkipDeprecatedLogs = true },
		},
		{
			name: "service-node", value: "name", help: "The node's id, instead of the bootstrap's",
			set: text(func(c *commandLine) *string { return &c.ServiceNode }),
		},
		{
			name: "service-cluster", value: "name", help: "The node's cluster, instead of the bootstrap's",
			set: text(func(c *commandLine) *string { return &c.ServiceCluster }),
		},
		{
			name: "service-zone", value: "name", help: "The node's zone, instead of the bootstrap's",
			set: text(func(c *commandLine) *string { return &c.ServiceZone }),
		},
		{
			name: "local-address-ip-version", value: "v4|v6", help: "Which of the machine's addresses is the local one; v4 by default",
			set: oneOf("IP address version", map[string]bool{"v4": false, "v6": true},
				func(c *commandLine, v6 bool) { c.LocalAddressV6 = v6 }),
		},
		{
			name: "admin-address-path", value: "path", help: "File that gets the address of the admin server",
			set: text(func(c *commandLine) *string { return &c.AdminAddressPath }),
		},
	}
}

func logFlags() []flag {
	return []flag{
		{
			name: "log-level", short: "l", value: "level", help: "trace, debug, info (default), warning or warn, error, critical, off",
			set: func(c *commandLine, v string) error {
				if _, err := log.ParseLevel(v); err != nil {
					return fmt.Errorf("error: %w", err)
				}
				c.LogLevel = v
				return nil
			},
		},
		{
			name: "component-log-level", value: "list", help: "Levels of components, like upstream:debug,config:trace",
			set: func(c *commandLine, v string) (err error) {
				if c.componentLevels, err = log.ParseComponentLevels(v); err != nil {
					return fmt.Errorf("error: %w", err)
				}
				c.ComponentLogLevel = v
				return nil
			},
		},
		{
			name: "log-format", value: "pattern", help: "Pattern of a log line, in spdlog's syntax; by default " + log.DefaultFormat,
			set: func(c *commandLine, v string) error {
				c.LogFormat, c.LogFormatSet = v, true
				return nil
			},
		},
		{
			name: "log-path", value: "path", help: "Log file; by default the log goes to standard error",
			set: text(func(c *commandLine) *string { return &c.LogPath }),
		},
		{name: "log-format-escaped", unsupported: "use %_ in --log-format"},
		{name: "enable-fine-grain-logging", unsupported: "levels go by component"},
		{name: "log-stacktrace-single-entry", noEffect: "a stack trace is one log entry already"},
		{
			name: "file-flush-interval-msec", value: "ms", help: "Longest time that an access log line is kept back; 10000 by default",
			set: number("file-flush-interval-msec", func(c *commandLine, n uint32) {
				c.FileFlushInterval = time.Duration(n) * time.Millisecond
			}),
		},
		{
			name: "file-flush-min-size-kb", value: "KB", help: "Size from which access logs are written at once; 64 by default",
			set: number("file-flush-min-size-kb", func(c *commandLine, n uint32) { c.FileFlushMinBytes = int(n) << 10 }),
		},
	}
}

func processFlags() []flag {
	return []flag{
		{
			name: "concurrency", value: "n", help: "How many CPUs to use; by default what the machine and the cgroup allow",
			set: number("concurrency", func(c *commandLine, n uint32) { c.Concurrency = max(1, int(n)) }),
		},
		{
			name: "drain-time-s", value: "s", help: "How long connections of a removed listener may take to end; 600 by default",
			set: number("drain-time-s", func(c *commandLine, n uint32) { c.DrainTime = time.Duration(n) * time.Second }),
		},
		{
			name: "drain-strategy", value: "how", help: "gradual (default) or immediate",
			set: oneOf("drain-strategy", map[string]server.DrainStrategy{
				"gradual": server.Gradual, "immediate": server.Immediate,
			}, func(c *commandLine, s server.DrainStrategy) { c.DrainStrategy = s }),
		},
		{
			name: "wasm-cache-dir", value: "path", help: "Where fetched and compiled Wasm modules are kept, for this user only; not at all by default",
			set: text(func(c *commandLine) *string { return &c.WasmCacheDir }),
		},
		{
			name: "enable-core-dump", help: "Dump core when the process crashes",
			on: func(c *commandLine) { c.EnableCoreDump = true },
		},
		{name: "cpuset-threads", noEffect: "the default of --concurrency follows the cpuset anyway"},
	}
}

// otherFlags are those about hot restart, which there is none of, and what only Envoy can have.
func otherFlags() []flag {
	return []flag{
		{
			name: "parent-shutdown-time-s", value: "s", noEffect: noHotRestart,
			set: number("parent-shutdown-time-s", func(c *commandLine, n uint32) {
				c.ParentShutdownTime = time.Duration(n) * time.Second
			}),
		},
		{
			name: "disable-hot-restart", help: "There is no hot restart; accepted as it asks for nothing else",
			on: func(c *commandLine) { c.DisableHotRestart = true },
		},
		{
			name: "restart-epoch", value: "n", help: "Only 0: " + noHotRestart,
			set: number("restart-epoch", func(c *commandLine, n uint32) { c.restartEpoch = n }),
		},
		{
			name: "base-id", value: "n", noEffect: noHotRestart + ", so nothing is shared that would need an id",
			set: number("base-id", func(c *commandLine, n uint32) { c.BaseID = n }),
		},
		{name: "use-dynamic-base-id", noEffect: noHotRestart + ", so nothing is shared that would need an id"},
		{name: "base-id-path", value: "path", unsupported: noHotRestart},
		{name: "socket-path", value: "path", unsupported: noHotRestart},
		{name: "socket-mode", value: "mode", unsupported: noHotRestart},
		{name: "skip-hot-restart-parent-stats", noEffect: noHotRestart},
		{name: "skip-hot-restart-on-no-parent", unsupported: noHotRestart},
		{
			name: "hot-restart-version", help: "Print the version of hot restart (disabled) and end",
			on: func(c *commandLine) { c.hotRestartVersion = true },
		},
		{name: "enable-mutex-tracing", unsupported: envoysLocks},
		{name: "disable-extensions", value: "list", unsupported: "no extension can be taken out"},
		{
			name: "stats-tag", value: "tag:value", repeated: true, help: "Tag for all stats; may be given more than once",
			set: func(c *commandLine, v string) error { return c.addStatsTag(v) },
		},
		{name: "version", help: "Print the version and end", on: func(c *commandLine) { c.version = true }},
		{name: "help", short: "h", help: "Print this and end", on: func(c *commandLine) { c.help = true }},
	}
}
