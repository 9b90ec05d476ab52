package server

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"sidecar/internal/admin"
	"sidecar/wasmhost"
)

// wasmPage shows the plugins. DIVERGES(admin-wasm): Envoy has no such page.
func (s *Server) wasmPage() admin.Page {
	return admin.Page{
		Path: "/wasm", Help: "print Wasm plugins with their VMs, callbacks and last errors",
		Text: func(w io.Writer) error { return writePlugins(w, s.wasm.Status(), time.Now()) },
		JSON: func() any {
			return map[string]any{
				"plugins": s.wasm.Status(), "memory_bytes": s.wasm.MemoryBytes(), "vms": s.wasm.VMs(),
			}
		},
	}
}

func writePlugins(w io.Writer, list []wasmhost.Status, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(list) == 0 {
		fmt.Fprintln(tw, "no Wasm plugins")
	}
	for i := range list {
		writePlugin(tw, &list[i], now)
	}
	return tw.Flush()
}

func writePlugin(w io.Writer, p *wasmhost.Status, now time.Time) {
	fmt.Fprintf(w, "%s: %s", p.Name, p.State)
	if p.Started != nil {
		fmt.Fprintf(w, ", started %s ago", now.Sub(*p.Started).Round(time.Second))
	}
	fmt.Fprintln(w)
	for _, f := range [][2]string{
		{"filter", p.Filter},
		{"root_id", p.RootID},
		{"vm_id", p.VMID},
		{"code", p.Source},
		{"sha256", p.Code},
		{"abi", p.ABI},
		{"policy", p.Policy},
		{"remark", p.Remark},
	} {
		if f[1] != "" {
			fmt.Fprintf(w, "  %s\t%s\n", f[0], printable(f[1]))
		}
	}
	if p.LastError != "" && p.ErrorTime != nil {
		fmt.Fprintf(w, "  last error\t%s (%s ago)\n", printable(p.LastError), now.Sub(*p.ErrorTime).Round(time.Second))
	}
	fmt.Fprintf(w, "  streams\t%d\n", p.Streams)
	for i, v := range p.VMs {
		fmt.Fprintf(w, "  vm %d\t%d KiB of memory, %d streams, %d waiting, %d call-outs\n",
			i, v.MemoryBytes>>10, v.Streams, v.Waiting, v.CallOuts)
	}
	for _, c := range p.Callbacks {
		fmt.Fprintf(w, "  %s\t%d calls, %d failed, mean %s, p50 %s, p99 %s, most %s\n",
			c.Name, c.Count, c.Failed, c.Mean, c.P50, c.P99, c.Max)
	}
	var calls uint64
	for _, n := range p.Functions {
		calls += n
	}
	fmt.Fprintf(w, "  host calls\t%d, %d without effect\n\n", calls, p.NoEffect)
}

// printable keeps a plugin's text on its line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
