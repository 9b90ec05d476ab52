package abi

import (
	"strings"

	"sidecar/wasmhost/internal/engine"
)

// Symbol is an import or export of a module with what the host makes of it.
type Symbol struct {
	// Module is empty for an export. Type is written like "(i32, i32) -> i32"; empty unless the symbol
	// is a function.
	Module, Name, Type string
	// Known: the host has the import, or calls the export.
	Known bool
	// Problem says why the module can't be linked, or what happens when an import is called that the
	// host doesn't have.
	Problem string
	// Fatal problems refuse the module.
	Fatal bool
}

// String names the version as plugins' documentation does.
func (v Version) String() string {
	return [...]string{"none", "0.1.0", "0.2.0", "0.2.1"}[v]
}

// Inspect lists what a module imports and exports. further are host functions besides the ABI's.
func Inspect(m *engine.Module, further ...engine.HostFunc) (v Version, imports, exports []Symbol) {
	known := map[[2]string]engine.Signature{}
	for _, f := range append(functions(nil), further...) {
		known[[2]string{f.Module, f.Name}] = f.Signature
	}
	for _, im := range m.Imports {
		s := Symbol{Module: im.Module, Name: im.Name, Type: typeText(im.Signature)}
		have, ok := known[[2]string{im.Module, im.Name}]
		switch {
		case im.Signature == "":
			s.Problem, s.Fatal = "not a function, which is all that the host has", true
		case !ok:
			s.Problem = "not provided: a call traps the plugin"
		case have != im.Signature:
			s.Known, s.Fatal = true, true
			s.Problem = "the host's is " + typeText(have)
		default:
			s.Known = true
		}
		imports = append(imports, s)
	}
	for _, ex := range m.Exports {
		s := Symbol{Name: ex.Name, Type: typeText(ex.Signature)}
		for i := range callbacks {
			if callbacks[i].Name == ex.Name {
				s.Known = true
				if !accepts(&callbacks[i], ex.Signature) {
					s.Problem, s.Fatal = "the host calls it as "+typeText(callbacks[i].Signature), true
				}
			}
		}
		exports = append(exports, s)
	}
	return version(m), imports, exports
}

func accepts(x *engine.Export, s engine.Signature) bool {
	ok := x.Signature == s
	for _, alt := range x.Alternatives {
		ok = ok || alt == s
	}
	return ok
}

// typeText writes "ii:i" as "(i32, i32) -> i32".
func typeText(s engine.Signature) string {
	params, results, ok := strings.Cut(string(s), ":")
	if !ok {
		return ""
	}
	list := func(letters string) string {
		var parts []string
		for _, c := range letters {
			parts = append(parts, map[rune]string{'i': "i32", 'I': "i64", 'f': "f32", 'F': "f64", 'r': "ref"}[c])
		}
		return strings.Join(parts, ", ")
	}
	out := "(" + list(params) + ")"
	if results != "" {
		out += " -> " + list(results)
	}
	return out
}
