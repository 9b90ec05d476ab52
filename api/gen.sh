#!/bin/sh
# Generates the Go code of api/**/*.proto. protoc is that of the Python package grpcio-tools, unless
# PROTOC names another; protoc-gen-go comes from the protobuf module in go.mod.
set -eu
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
protoc=${PROTOC:-python3 -m grpc_tools.protoc}
go build -o "$tmp/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
go run ./api/gen > "$tmp/imports.pb"
for f in $(cd api && find sidecar -name '*.proto'); do
  $protoc --plugin="$tmp/protoc-gen-go" --descriptor_set_in="$tmp/imports.pb" --proto_path=api \
    --go_out=. --go_opt=module=sidecar "$f"
done
# The version of protoc is no part of the result.
find api/sidecar -name '*.pb.go' -exec sed -i -E 's|^// 	protoc  +v.*$||' {} +
gofmt -w api/sidecar
