package wasmcli

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"sidecar/wasmhost"
	"sidecar/wasmhost/abi"
)

// errRefused ends inspect with exit code 1 after it has said why.
var errRefused = errors.New("the module would be refused")

func inspectCommand(args []string, stdout, _ io.Writer) error {
	fs := flag.NewFlagSet("inspect", flag.ContinueOnError)
	file, err := parse(fs, args, stdout, "Says what is in a module and whether it would be taken.")
	if err != nil {
		return err
	}
	code, err := readCode(file)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(code)
	fmt.Fprintf(stdout, "%s: %s, sha256 %s\n", file, size(len(code)), hex.EncodeToString(digest[:]))
	l, err := readLayout(code)
	if l != nil {
		printLayout(stdout, l)
	}
	if err != nil {
		return err
	}
	h, err := wasmhost.NewHost(wasmhost.Options{})
	if err != nil {
		return err
	}
	defer h.Close()
	in, err := h.Inspect(code)
	if err != nil {
		return fmt.Errorf("it doesn't compile: %w", err)
	}
	return report(stdout, in)
}

// readCode reads a module's file, up to what the host takes.
func readCode(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	code, err := io.ReadAll(io.LimitReader(f, wasmhost.MaxCodeBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(code) > wasmhost.MaxCodeBytes:
		return nil, fmt.Errorf("%s: larger than %s, which is the most that is taken", file, size(wasmhost.MaxCodeBytes))
	}
	return code, nil
}

func size(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

const pageBytes = 64 << 10

func printLayout(w io.Writer, l *layout) {
	for _, p := range l.Producers {
		fmt.Fprintln(w, "made by:", p)
	}
	for _, m := range l.Memories {
		most := "no maximum of its own"
		if m.Max > 0 {
			most = "at most " + size(int(min(m.Max, 1<<16)*pageBytes))
		}
		fmt.Fprintf(w, "memory: %s at the start, %s\n", size(int(min(m.Min, 1<<16)*pageBytes)), most)
	}
	for _, t := range l.Tables {
		fmt.Fprintf(w, "table: %d elements\n", t.Min)
	}
	if l.Start {
		fmt.Fprintln(w, "start section: runs before any export")
	}
	fmt.Fprintln(w, "\nsections:")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range l.Sections {
		entries := ""
		if s.Count > 0 {
			entries = fmt.Sprintf("%d entries", s.Count)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", s.Name, size(s.Bytes), entries)
	}
	tw.Flush()
}

func report(w io.Writer, in *wasmhost.Inspection) error {
	fmt.Fprintf(w, "\nABI version: %s\n", in.Version)
	fmt.Fprintf(w, "compiled: %s in %s\n", size(in.CompiledBytes), in.CompileTime.Round(time.Millisecond))
	fmt.Fprintln(w, "\nimports:")
	symbols(w, in.Imports, func(abi.Symbol) string { return "" })
	fmt.Fprintln(w, "\nexports:")
	symbols(w, in.Exports, func(s abi.Symbol) string {
		if s.Known {
			return "called by the host"
		}
		return ""
	})
	if in.Refused != nil {
		fmt.Fprintf(w, "\nrefused: %v\n", in.Refused)
		if errors.Is(in.Refused, abi.ErrNoVersion) {
			fmt.Fprintln(w, "  A plugin exports a function proxy_abi_version_0_1_0, _0_2_0 or _0_2_1. SDKs do;"+
				" a program that is no plugin, or whose linker dropped what nobody calls, doesn't.")
		}
		return errRefused
	}
	fmt.Fprintln(w, "\nwould be taken: it compiles and links. Whether it starts, run tells.")
	return nil
}

func symbols(w io.Writer, list []abi.Symbol, note func(abi.Symbol) string) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range list {
		name := clean(s.Name)
		if s.Module != "" {
			name = clean(s.Module) + "." + name
		}
		text := note(s)
		if s.Problem != "" {
			text = s.Problem
			if s.Fatal {
				text = "REFUSED: " + text
			}
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\n", name, s.Type, text)
	}
	tw.Flush()
}
