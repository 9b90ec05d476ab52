package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/wasmhost"
)

// runPlugins reads what 100 plugins from 10 modules cost in memory.
func runPlugins(ctx context.Context, e *env) error {
	if err := e.needPlugin(); err != nil {
		return err
	}
	n, modules := 100, 10
	if e.short {
		n = 20
	}
	dir, err := os.MkdirTemp("", "bench-plugins")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files, err := variants(e.plugin, dir, modules)
	if err != nil {
		return err
	}
	list := make([]string, n)
	for i := range list {
		list[i] = files[i%modules]
	}
	perPlugin := map[string]float64{}
	specs := []func(shape) spec{e.ours}
	if e.envoy != "" {
		specs = append(specs, func(s shape) spec { return e.theirs("envoy", s) })
	}
	for _, sp := range specs {
		one, err := e.settledRSS(ctx, sp(shape{plugin: e.plugin, version: quietVersion, further: list[:1]}))
		if err != nil {
			return err
		}
		all, err := e.settledRSS(ctx, sp(shape{plugin: e.plugin, version: quietVersion, further: list}))
		if err != nil {
			return err
		}
		name := sp(shape{}).name
		perPlugin[name] = float64(all-one) / 1024 / float64(n-1)
		e.note("%s: %.1f MB with %d plugins from %d modules, %.1f with 2: %.0f KB each", name,
			megabytes(all), n+1, modules, megabytes(one), perPlugin[name])
	}
	if e.envoy != "" {
		e.atMost("plugins", "RSS a plugin, as a part of Envoy's", perPlugin["sidecar"]/perPlugin["envoy"], "", "", 0.25)
	}
	return nil
}

// variants are copies of a module that differ in an empty section: other code for any cache.
func variants(file, dir string, n int) ([]string, error) {
	code, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range n {
		name := strconv.Itoa(i)
		variant := append(append([]byte(nil), code...), 0, byte(len(name)+1), byte(len(name)))
		path := filepath.Join(dir, "m"+name+".wasm")
		if err := os.WriteFile(path, append(variant, name...), 0o600); err != nil {
			return nil, err
		}
		out = append(out, path)
	}
	return out, nil
}

// furtherPlugins are the filters before the plugin, each of a VM of its own.
func (s *shape) furtherPlugins() []any {
	var out []any
	for i, file := range s.further {
		one := *s
		one.plugin = file
		f := one.wasm(s.version)
		plugin, ok := f["config"].(object)
		if !ok {
			continue
		}
		plugin["name"] = "further" + strconv.Itoa(i)
		if vm, ok := plugin["vm_config"].(object); ok {
			vm["vm_id"] = "further" + strconv.Itoa(i)
		}
		out = append(out, object{"name": "further" + strconv.Itoa(i), "typed_config": f})
	}
	return out
}

// runManySwaps replaces a plugin ten thousand times, in this process: what is left must not grow.
func runManySwaps(ctx context.Context, e *env) error {
	if err := e.needPlugin(); err != nil {
		return err
	}
	early, total := 1000, 10000
	if e.short {
		early, total = 100, 1000
	}
	dir, err := os.MkdirTemp("", "bench-swaps")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files, err := variants(e.plugin, dir, 10)
	if err != nil {
		return err
	}
	h, err := wasmhost.NewHost(wasmhost.Options{CacheDir: filepath.Join(dir, "cache")})
	if err != nil {
		return err
	}
	defer h.Close()
	var current *wasmhost.Plugin
	defer func() {
		if current != nil {
			current.Close()
		}
	}()
	var after int64
	start := time.Now()
	for i := range total {
		cfg, err := wasmhost.Compile(swapConfig(files[i%len(files)], i), nil, h.Limits())
		if err != nil {
			return err
		}
		next, err := h.Start(ctx, cfg)
		if err != nil {
			return err
		}
		if current != nil {
			current.Close()
		}
		current = next
		if i == early {
			if after, err = ownRSS(); err != nil {
				return err
			}
		}
	}
	rss, err := ownRSS()
	if err != nil {
		return err
	}
	e.note("%d swaps in %.1f s; RSS %.1f MB after %d, %.1f after %d", total, time.Since(start).Seconds(),
		megabytes(after), early, megabytes(rss), total)
	e.atMost("swaps", fmt.Sprintf("RSS after %d swaps, as a part of that after %d", total, early),
		float64(rss)/float64(after), "", "", 1.05)
	return nil
}

func swapConfig(file string, i int) *wasmv3.PluginConfig {
	text, err := anypb.New(wrapperspb.String("v" + strconv.Itoa(i)))
	if err != nil {
		panic(err) // A string can be encoded.
	}
	return &wasmv3.PluginConfig{
		Name: "swapped", Configuration: text,
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{
				Specifier: &corev3.DataSource_Filename{Filename: file},
			}}},
		}},
	}
}

func ownRSS() (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%w: no VmRSS", errSkip)
}
