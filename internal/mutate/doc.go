// Package mutate compiles what configuration adds to and removes from header maps
// (HeaderValueOption lists and their *_to_remove companions) and applies it as Envoy's header
// parser does: first everything is removed, then every value is made from the headers as they were,
// then headers are overwritten, then added.
package mutate
