package main

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sidecar/internal/config"
	"sidecar/internal/log"
	"sidecar/internal/server"
)

func defaults(change func(*server.Options)) server.Options {
	o := server.Options{
		ConfigPath: "x", Concurrency: 7, LogLevel: "info", LogFormat: "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v",
		DrainTime: 10 * time.Minute, ParentShutdownTime: 15 * time.Minute, FileFlushInterval: 10 * time.Second,
		FileFlushMinBytes: 64 << 10, DynamicUnknown: config.WarnUnknown,
	}
	if change != nil {
		change(&o)
	}
	return o
}

func TestParseFlags(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args string
		want server.Options
	}{
		{"short", "-c x", defaults(nil)},
		{"long", "--config-path x", defaults(nil)},
		{"with =", "--config-path=x", defaults(nil)},
		{"yaml", "--config-yaml {a:=b} -c x", defaults(func(o *server.Options) { o.ConfigYAML = "{a:=b}" })},
		{"rest ignored", "-c x -- --nope", defaults(nil)},
		// What pilot-agent passes.
		{
			"pilot-agent", "-c x --drain-time-s 45 --drain-strategy immediate --local-address-ip-version v4 " +
				"--file-flush-interval-msec 1000 --disable-hot-restart --allow-unknown-static-fields -l warning " +
				"--component-log-level misc:error --skip-deprecated-logs --concurrency 2",
			defaults(func(o *server.Options) {
				o.DrainTime, o.DrainStrategy, o.FileFlushInterval = 45*time.Second, server.Immediate, time.Second
				o.DisableHotRestart, o.StaticUnknown, o.LogLevel = true, config.WarnUnknown, "warning"
				o.ComponentLogLevel, o.SkipDeprecatedLogs, o.Concurrency = "misc:error", true, 2
			}),
		},
		{
			"all others", "-c x --mode validate --service-node n --service-cluster c --service-zone z --local-address-ip-version v6 " +
				"--admin-address-path a --reject-unknown-dynamic-fields --ignore-unknown-dynamic-fields --log-format %v --log-path p " +
				"--file-flush-min-size-kb 1 --enable-core-dump --restart-epoch 0 --drain-strategy gradual --concurrency 0",
			defaults(func(o *server.Options) {
				o.Mode, o.ServiceNode, o.ServiceCluster, o.ServiceZone, o.LocalAddressV6 = server.Validate, "n", "c", "z", true
				o.AdminAddressPath, o.DynamicUnknown, o.LogFormat, o.LogFormatSet, o.LogPath = "a", config.RejectUnknown, "%v", true, "p"
				o.FileFlushMinBytes, o.EnableCoreDump, o.Concurrency = 1024, true, 1
			}),
		},
		{
			"ignore unknown", "-c x --ignore-unknown-dynamic-fields --mode init_only --allow-unknown-fields",
			defaults(func(o *server.Options) {
				o.DynamicUnknown, o.Mode, o.StaticUnknown = config.IgnoreUnknown, server.InitOnly, config.WarnUnknown
			}),
		},
		{"tags", "-c x --stats-tag a:b:c --stats-tag d:e", defaults(func(o *server.Options) {
			o.StatsTags = [][2]string{{"a", "b:c"}, {"d", "e"}}
		})},
		{"no effect", "-c x --base-id 3 --parent-shutdown-time-s 5", defaults(func(o *server.Options) {
			o.BaseID, o.ParentShutdownTime = 3, 5*time.Second
			o.NoEffect = []string{
				"--base-id has no effect: there is no hot restart, so nothing is shared that would need an id",
				"--parent-shutdown-time-s has no effect: there is no hot restart",
			}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := parseFlags(strings.Fields(tt.args))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(tt.args, "--concurrency") {
				c.Concurrency = 7
			}
			if diff := cmp.Diff(tt.want, c.Options, cmpopts.IgnoreFields(server.Options{}, "Logs", "LogFile")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseFlags_Errors(t *testing.T) {
	t.Parallel()
	// The texts are Envoy's, as far as Envoy refuses the same.
	for args, want := range map[string]string{
		"":                                   "At least one of --config-path or --config-yaml should be non-empty",
		"--nope":                             "PARSE ERROR: Argument: --nope\n             Couldn't find match for argument",
		"--log-leve warn":                    "PARSE ERROR: Argument: --log-leve\n             Couldn't find match for argument",
		"-config-path x":                     "PARSE ERROR: Argument: -config-path\n             Couldn't find match for argument",
		"--skip-deprecated-logs=true":        "PARSE ERROR: Argument: --skip-deprecated-logs=true\n             Couldn't find match for argument",
		"-c x extra":                         "PARSE ERROR: Argument: extra\n             Couldn't find match for argument",
		"-c x --config-path y":               "PARSE ERROR: Argument: -c (--config-path)\n             Argument already set!",
		"--mode serve --mode serve":          "PARSE ERROR: Argument: (--mode)\n             Argument already set!",
		"-c":                                 "PARSE ERROR: Argument: -c (--config-path)\n             Missing a value for this argument!",
		"--concurrency x":                    "PARSE ERROR: Argument: (--concurrency)\n             Couldn't read argument value from string 'x'",
		"--concurrency -1":                   "PARSE ERROR: Argument: (--concurrency)\n             Couldn't read argument value from string '-1'",
		"--drain-time-s 99999999999":         "PARSE ERROR: Argument: (--drain-time-s)\n             Couldn't read argument value from string '99999999999'",
		"--mode foo":                         "error: unknown mode 'foo'",
		"-l foo":                             "error: invalid log level specified 'foo'",
		"--component-log-level foo:info":     "error: invalid component specified 'foo'",
		"--drain-strategy foo":               "error: unknown drain-strategy 'foo'",
		"--local-address-ip-version v5":      "error: unknown IP address version 'v5'",
		"-c x --restart-epoch 1":             "error: --restart-epoch 1 is not supported: there is no hot restart",
		"--stats-tag a":                      "error: misformatted stats-tag 'a'",
		"--stats-tag a:":                     "error: misformatted stats-tag 'a:' contains invalid char in ''",
		"--stats-tag a_b:c":                  "error: misformatted stats-tag 'a_b:c' contains invalid char in 'a_b'",
		"--stats-tag a:b.c":                  "error: misformatted stats-tag 'a:b.c' contains invalid char in 'b.c'",
		"-c x --enable-fine-grain-logging":   "error: --enable-fine-grain-logging is not supported: levels go by component",
		"-c x --socket-path=y --concurrency": "error: --socket-path is not supported: there is no hot restart",
	} {
		_, err := parseFlags(strings.Fields(args))
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", args, err, want)
		}
	}
}

// TestFlagTable holds that no flag is taken and forgotten.
func TestFlagTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, f := range flagTable() {
		if seen[f.name] {
			t.Errorf("%s is there twice", f.name)
		}
		seen[f.name] = true
		has := func(b bool) int {
			if b {
				return 1
			}
			return 0
		}
		if has(f.help != "")+has(f.noEffect != "")+has(f.unsupported != "") != 1 {
			t.Errorf("%s must have one of: help, a reason for no effect, a reason to refuse", f.name)
		}
		if f.help != "" && f.set == nil && f.on == nil {
			t.Errorf("%s has no effect and doesn't say so", f.name)
		}
		if f.set != nil && !f.takesValue() {
			t.Errorf("%s stores a value that it doesn't take", f.name)
		}
	}
}

func TestRun_WithoutServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args, stdout, stderr string
		code                 int
	}{
		{"--version", "\nsidecar  version: ", "", 0},
		{"--help", "usage: sidecar -c <path>", "", 0},
		{"--hot-restart-version", "disabled\n", "", 0},
		{"--nope", "", "PARSE ERROR: Argument: --nope", 1},
		{"-c x --log-path /no/such/dir/log", "", "error: log file: open /no/such/dir/log: no such file or directory", 1},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"sidecar"}, strings.Fields(tt.args)...), &stdout, &stderr)
		if code != tt.code || !strings.HasPrefix(stdout.String(), tt.stdout) || !strings.HasPrefix(stderr.String(), tt.stderr) {
			t.Errorf("%s: %d, %q, %q", tt.args, code, stdout.String(), stderr.String())
		}
	}
}

func TestOpenLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	c, err := parseFlags([]string{"-c", "x", "-l", "warn", "--component-log-level", "upstream:trace", "--log-path", path})
	if err != nil {
		t.Fatal(err)
	}
	if err := openLog(c, io.Discard); err != nil {
		t.Fatal(err)
	}
	defer c.LogFile.Close()
	for _, l := range c.Logs.Levels() {
		want := log.LevelWarning
		if l.Name == "upstream" {
			want = log.LevelTrace
		}
		if l.Level != want {
			t.Errorf("%s: %v", l.Name, l.Level)
		}
	}
}
