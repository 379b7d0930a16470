package image

import "testing"

func TestNamesOfTheRegistryOnLoopbackAreTheNodes(t *testing.T) {
	for name, want := range map[string]bool{
		"127.0.0.1:5000/sif/tools@sha256:ab":      true,
		"[::1]:5000/imported/average@sha256:ab":   true,
		"127.0.0.1:5000/suite/average@sha256:ab":  false,
		"127.0.0.1:5000/sif@sha256:ab":            false,
		"127.0.0.1:5000/sifs/tools:v1":            false,
		"10.0.0.1:5000/sif/tools@sha256:ab":       false,
		"localhost:5000/imported/tools@sha256:ab": false,
		"docker.io/imported/tools:latest":         false,
		"sha256:ab":                               false,
		"":                                        false,
	} {
		if got := Served(name); got != want {
			t.Errorf("%q is the node's: %t", name, got)
		}
	}
}
