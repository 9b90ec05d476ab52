package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// quietVersion keeps the plugin from touching the response: it reads all request headers and adds
// one, like the example of the SDK.
const quietVersion = "-bench"

func (e *env) needPlugin() error {
	if _, err := os.Stat(e.plugin); err != nil {
		return fmt.Errorf("%w: plugin: %w", errSkip, err)
	}
	return nil
}

// runWasm measures both proxies with and without the plugin: what it adds is the difference of two
// figures that are near each other, so it takes more rounds than the rest.
func runWasm(ctx context.Context, e *env) error {
	if err := errors.Join(e.needPlugin(), e.needWrk()); err != nil {
		return err
	}
	with := shape{plugin: e.plugin, version: quietVersion}
	specs := []spec{e.ours(shape{}), e.ours(with)}
	specs[1].name = "sidecar+plugin"
	if e.envoy != "" {
		specs = append(specs, e.theirs("envoy", shape{}), e.theirs("envoy+plugin", with))
	}
	n := e.rounds
	if !e.short {
		n = max(n, 7)
	}
	data, err := e.wrkRounds(ctx, n, specs...)
	if err != nil {
		return err
	}
	e.table("wasm", names(specs), data)
	ours := data.difference("sidecar+plugin", "sidecar", metricCPU)
	e.note("the plugin adds %s us to the sidecar's requests", ours)
	if e.envoy == "" {
		return nil
	}
	theirs := data.difference("envoy+plugin", "envoy", metricCPU)
	e.note("the plugin adds %s us to Envoy's requests", theirs)
	if theirs.median() <= 0 {
		return errors.New("the plugin costs Envoy nothing: the measurement is wrong")
	}
	// Of medians: the ratio of two differences in one round is mostly noise.
	e.atMost("wasm", "added CPU, as a part of what it adds to Envoy", ours.median()/theirs.median(),
		"", "", 0.2)
	return nil
}
