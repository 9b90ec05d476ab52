package main

import (
	"fmt"
	"io"
)

// usage lists the flags that do something; those that don't are named at the end.
func usage(w io.Writer, program string) {
	fmt.Fprintf(w, "usage: %s -c <path> [flags]\n", program)
	fmt.Fprintf(w, "       %s wasm run|inspect <plugin.wasm>   try a Wasm plugin without a server\n\n", program)
	var ineffective, unsupported []string
	for _, f := range flagTable() {
		switch {
		case f.unsupported != "":
			unsupported = append(unsupported, "--"+f.name)
			continue
		case f.noEffect != "":
			ineffective = append(ineffective, "--"+f.name)
			continue
		}
		left := "--" + f.name
		if f.short != "" {
			left = "-" + f.short + ", " + left
		}
		if f.takesValue() {
			left += " <" + f.value + ">"
		}
		fmt.Fprintf(w, "  %-40s %s\n", left, f.help)
	}
	fmt.Fprintf(w, "\nTaken from Envoy's command lines without effect:\n")
	for _, name := range ineffective {
		fmt.Fprintf(w, "  %s\n", name)
	}
	fmt.Fprintf(w, "\nRefused:\n")
	for _, name := range unsupported {
		fmt.Fprintf(w, "  %s\n", name)
	}
}
