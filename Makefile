# v6node: targets for a checkout. `make bundle` needs Go; with gcc, pkg-config
# and libseccomp-dev it builds runc as well, without them it borrows the host's.
GO ?= go

.PHONY: all build bundle

all: build bundle

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/v6node

# containerd, its shim, runc, the pause program and crictl, into bundle/.
# Only what changed since the last time is built.
bundle:
	@command -v $(GO) >/dev/null || { echo "make bundle: the Go toolchain was not found; install it from https://go.dev/dl/" >&2; exit 1; }
	@$(GO) -C internal/tools run ./bundle -repo "$(CURDIR)" -out "$(CURDIR)/bundle"
