//go:build integration

package integration

import (
	"slices"
	"testing"
)

func TestOnEmbeddedContainerd(t *testing.T) { onRuntime(t, embeddedKind, suite()) }

func TestOnExternalContainerd(t *testing.T) {
	onRuntime(t, externalKind, append(suite(), externalScenarios()...))
}

// TestOnDebianContainerd: 1.6.20 is the oldest containerd that is supported.
func TestOnDebianContainerd(t *testing.T) { onRuntime(t, debianKind, suite()) }

func TestOnCRIO(t *testing.T) { onRuntime(t, crioKind, suite()) }

// suite is what holds on every runtime.
func suite() []scenario {
	return slices.Concat(
		restartScenarios(),
		killScenarios(),
		sandboxScenarios(),
		proxyScenarios(),
		policyScenarios(),
		sifScenarios(),
		taskScenarios(),
		logScenarios(),
		inspectionScenarios(),
		adminScenarios(),
	)
}
