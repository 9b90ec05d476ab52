#!/bin/sh
# Installs what the end-to-end test runs into the directory $1: the programs of Istio with the Go module
# client, which takes minutes the first time, the template of their bootstrap, and this binary.
set -eu
out=$1
version=v0.0.0-20260827124520-eed52ebb66ad
mkdir -p "$out"
export GOBIN="$out" GOFLAGS=-mod=mod
[ -x "$out/pilot-discovery" ] || go install "istio.io/istio/pilot/cmd/pilot-discovery@$version"
[ -x "$out/pilot-agent" ] || go install -tags agent "istio.io/istio/pilot/cmd/pilot-agent@$version"
module=$(cd "$(go env GOMODCACHE)/istio.io/istio@$version" && pwd)
cp -f "$module/tools/packaging/common/envoy_bootstrap.json" "$out/envoy_bootstrap_tmpl.json"
chmod u+w "$out/envoy_bootstrap_tmpl.json"
export GOFLAGS=
go build -trimpath -o "$out/sidecar" ./cmd/sidecar
go test -c -tags e2e -o "$out/e2e.test" ./internal/e2e
