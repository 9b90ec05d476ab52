// Package admin is the administration server: the endpoints, texts and JSON shapes of Envoy's.
//
// It knows nothing of listeners or clusters: everything that it shows or does comes through the
// functions in Options, which the composition root supplies. It runs apart from the data path, on
// net/http; a slow reader holds up nobody.
//
// Single importer: the composition root alone has an admin server; it is a unit of its own, with
// tests against Envoy's answers.
//
// Limitations: HTML pages (format=html), profilers, heap dumps and stat-name lookups are answered
// with 501; /stats/prometheus answers in text whatever Accept says.
package admin
