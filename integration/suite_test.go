//go:build integration

package integration

import (
	"slices"
	"testing"
)

func TestOnEmbeddedContainerd(t *testing.T) { onRuntime(t, embeddedKind, suite()) }

func TestOnExternalContainerd(t *testing.T) { onRuntime(t, externalKind, suite()) }

// suite is what holds on every runtime.
func suite() []scenario {
	return slices.Concat(
		taskScenarios(),
	)
}
