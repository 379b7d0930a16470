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

func TestOnDebianContainerd(t *testing.T) { onRuntime(t, debianKind, suite()) }

func TestOnCRIO(t *testing.T) { onRuntime(t, crioKind, suite()) }

// suite is what holds on every runtime.
func suite() []scenario {
	return slices.Concat(
		restartScenarios(),
		stopScenarios(),
		ledgerScenarios(),
		killScenarios(),
		goneScenarios(),
		retryScenarios(),
		sandboxScenarios(),
		writableScenarios(),
		proxyScenarios(),
		connectionScenarios(),
		rivalScenarios(),
		policyScenarios(),
		approvalScenarios(),
		setupScenarios(),
		sifScenarios(),
		registryScenarios(),
		importScenarios(),
		taskScenarios(),
		logScenarios(),
		inspectionScenarios(),
		adminScenarios(),
	)
}
