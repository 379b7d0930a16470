# v6node: targets for a checkout. Nothing but the Go toolchain is needed to
# build; with gcc, pkg-config and libseccomp-dev `make bundle` also builds runc,
# without them it borrows the host's.
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOBUILD = CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

RUNTIMES ?= $(CURDIR)/.cache/runtimes

PREFIX ?= /usr/local
DESTDIR ?=
DEBS ?= $(CURDIR)/.cache/debian

# How long each fuzz target is run.
FUZZTIME ?= 1m

.PHONY: install uninstall deb test-deb all build bundle runtimes algorithms demo test unit failpoints integration-test test-runtimes test-vm fuzz bench bench-sif critest stress soak lint clean

all: build bundle algorithms

build:
	@command -v $(GO) >/dev/null || { echo "make: the Go toolchain was not found; install it from https://go.dev/dl/" >&2; exit 1; }
	$(GOBUILD) -o bin/ ./cmd/v6node ./cmd/v6node-cni

# containerd, its shim, runc, RootlessKit and crictl, into bundle/.
# Only what changed since the last time is built.
bundle:
	@command -v $(GO) >/dev/null || { echo "make: the Go toolchain was not found; install it from https://go.dev/dl/" >&2; exit 1; }
	@$(GO) -C internal/tools run ./bundle -repo "$(CURDIR)" -out "$(CURDIR)/bundle"

# The runtimes that v6node is tested with and does not ship: CRI-O and Debian's
# containerd. They stay between runs.
runtimes:
	@$(GO) -C internal/tools run ./bundle -runtimes -repo "$(CURDIR)" -out "$(RUNTIMES)"

# The static programs that demonstration, tests and benchmarks pack into images.
algorithms:
	$(GOBUILD) -o bundle/algorithms/ ./contrib/algorithms/...

# What was built, into DESTDIR and PREFIX. It builds nothing, so that root needs
# no toolchain.
install:
	@test -x bin/v6node || { echo "make install: nothing is built yet; run make first" >&2; exit 1; }
	@bin/v6node install --prefix "$(PREFIX)" --destdir "$(DESTDIR)" --bundle-dir "$(CURDIR)/bundle"

uninstall:
	@test -x bin/v6node || { echo "make uninstall: nothing is built; run v6node uninstall" >&2; exit 1; }
	@bin/v6node uninstall --prefix "$(PREFIX)" --destdir "$(DESTDIR)"

# A Debian package, into DEBS.
deb: all
	@contrib/debian/build "$(DEBS)"

# Installs the package in a clean Debian, uses it, upgrades it, and purges it;
# needs root and mmdebstrap.
test-deb: all
	@contrib/debian/test "$(DEBS)"

# Shows a federated analysis from end to end; needs root.
demo: all
	bin/v6node demo

# Everything that decides whether a change lands; needs root.
test: lint unit integration-test

unit:
	$(GO) test -race ./...

# v6node with places at which a test can kill it (internal/failpoint).
failpoints:
	$(GOBUILD) -tags failpoints -o bin/failpoints/ ./cmd/v6node ./cmd/v6node-cni

# Against real runtimes: the managed containerd, an external one, the oldest
# that is supported, and CRI-O.
integration-test: all runtimes failpoints
	$(GO) test -tags integration -timeout 50m -count=1 -p 1 -v ./integration/... ./runtime/... ./sif

# The part of it that decides which runtimes are supported.
test-runtimes: all runtimes
	$(GO) test -tags integration -timeout 50m -count=1 -v -run '^Test(ConformanceOf|On|SIFOn)' ./integration

# In a virtual machine with systemd, the unified cgroup hierarchy and a user's
# session (docs/testing.md); needs root, qemu and mmdebstrap.
test-vm: all
	$(GO) run ./integration/vm

# Every fuzz target, one after the other. What one finds is left in its testdata.
fuzz:
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u | while read -r dir; do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$$dir"/*_test.go); do \
			echo "== $$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$dir" || exit 1; \
		done; \
	done

bench: all
	$(GO) test -run '^$$' -bench Forward ./proxy/forward
	$(GO) run ./integration/bench

# SIF images against what a script would do; needs root, squashfs-tools,
# squashfs-tools-ng and mmdebstrap, and keeps its images in the user's cache.
bench-sif: all
	@$(GO) -C internal/tools run ./bundle -repo "$(CURDIR)" -out "$(CURDIR)/bundle" -only ctr
	$(GO) run ./integration/bench/sif

# The tests of cri-tools against the node's own containerd; needs root and
# busybox-static. Not all can pass: docs/runtimes.md.
critest: all
	@$(GO) -C internal/tools run ./bundle -repo "$(CURDIR)" -out "$(CURDIR)/bundle" -only critest
	$(GO) run ./integration/critest

# Ten minutes of a fork bomb, a memory hog, a disk filler and a log flooder at
# once; needs root.
STRESS_FOR ?= 10m
stress: all
	$(GO) run ./integration/stress -for $(STRESS_FOR)

# Tasks of all kinds on three nodes, while nodes, containerds, server and
# connections are killed at random; needs root.
SOAK_FOR ?= 20m
soak: all
	$(GO) run ./integration/soak -for $(SOAK_FOR)

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags integration,failpoints ./...

clean:
	rm -rf bin bundle
