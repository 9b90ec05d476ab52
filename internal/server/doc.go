// Package server is the composition root: it makes every part of the process, connects them, and
// decides the order of start and end.
//
// builtin.go is the table of all extensions. server.go starts (bootstrap, stats, logs, clusters,
// listeners, xDS), dynamic.go feeds what management servers send to its consumers, routes.go and
// extensions.go hold the resources that listeners refer to by name, lifecycle.go drains and ends.
package server
