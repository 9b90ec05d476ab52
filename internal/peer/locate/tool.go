package locate

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// Tool is a load generator that comes from the distribution.
type Tool struct {
	Name    string // the program
	Package string // the Debian package that has it
}

// Wrk drives HTTP/1.1 connections as fast as they answer.
func Wrk() Tool { return Tool{Name: "wrk", Package: "wrk"} }

// H2load drives HTTP/2 connections.
func H2load() Tool { return Tool{Name: "h2load", Package: "nghttp2-client"} }

// Tools lists them all.
func Tools() []Tool { return []Tool{Wrk(), H2load()} }

// Find returns the path of the tool.
func (t Tool) Find() (string, error) {
	path, err := exec.LookPath(t.Name)
	if err != nil {
		return "", fmt.Errorf("%w (Debian package %s; make peer installs it when root)", err, t.Package)
	}
	return path, nil
}

// Install returns the path of the tool; it is installed from the distribution's own packages when
// it's absent and that is possible without asking anyone.
func (t Tool) Install(ctx context.Context, log io.Writer) (string, error) {
	path, err := t.Find()
	if err == nil {
		return path, nil
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("not root: install the Debian package %s", t.Package)
	}
	apt, lookErr := exec.LookPath("apt-get")
	if lookErr != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, apt, "install", "--yes", "--no-install-recommends", t.Package)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("apt-get install %s: %w", t.Package, err)
	}
	return t.Find()
}
