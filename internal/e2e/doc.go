// Package e2e is a test of pods in a mesh: a stock istiod and stock agents, network namespaces with the
// iptables rules of Istio, and this binary as the proxy of each pod.
//
// It needs root and is run by make e2e-istio, which builds Istio's programs first and starts the test
// in a network namespace of its own: nothing is sent outside it. The management of pods and objects is
// that of an API server in this package, which has no schemas and trusts every token.
//
// Single importer: none, since it is a test.
package e2e
