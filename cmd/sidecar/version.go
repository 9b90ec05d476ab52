package main

import "runtime/debug"

// release is the version of the last release that CHANGELOG.md names.
const release = "0.1.0"

// buildVersion has Envoy's five parts: revision, version, state of the tree, kind of build, TLS
// library.
func buildVersion() string {
	revision, state := "unknown", "Clean"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				state = "Modified"
			}
		}
	}
	return revision + "/" + release + "/" + state + "/RELEASE/crypto-tls"
}
