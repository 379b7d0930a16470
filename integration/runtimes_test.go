//go:build integration

package integration

import (
	"context"
	"testing"

	"github.com/v6node/v6node/integration/conformance"
)

// conform tries on the world's runtime what `v6node check --run-tests` tries,
// each behaviour as a test of its own.
func conform(t *testing.T, w *world) {
	o := conformance.Options{Program: w.programs.V6node}
	if w.external != nil {
		o.Endpoint = w.external.endpoint()
		o.Restart = func(context.Context) error {
			w.external.restart(t)
			return nil
		}
	} else {
		n := w.start(t, nodeOptions{})
		o.Endpoint = n.endpoint(t)
	}
	if err := conformance.Run(t.Context(), o, func(out conformance.Outcome) {
		t.Run(out.Name, func(t *testing.T) {
			switch out.Status {
			case conformance.Fail:
				t.Error(out.Detail)
			case conformance.Skip:
				t.Skip(out.Detail)
			}
		})
	}); err != nil {
		t.Error(err)
	}
}

func TestConformanceOfEmbeddedContainerd(t *testing.T) { conform(t, newWorld(t, embeddedKind)) }

func TestConformanceOfExternalContainerd(t *testing.T) { conform(t, newWorld(t, externalKind)) }

func TestConformanceOfDebianContainerd(t *testing.T) { conform(t, newWorld(t, debianKind)) }

func TestConformanceOfCRIO(t *testing.T) { conform(t, newWorld(t, crioKind)) }

func TestSIFOnCRIO(t *testing.T) { onRuntime(t, crioKind, sifScenarios()) }
