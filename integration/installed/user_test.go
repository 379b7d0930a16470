//go:build vm

package installed

import (
	"strings"
	"testing"
)

// TestANormalUserSeesTheDemonstration walks the way of docs/rootless.md: what
// root prepares is there (packages, subordinate ids, lingering, delegation), root
// has installed the package, and the user does the rest.
func TestANormalUserSeesTheDemonstration(t *testing.T) {
	install(t)
	out := asUser(t, "v6node check && v6node demo")
	t.Log(out)
	if !strings.Contains(out, "patients: the same") {
		t.Error("the demonstration did not come to its end")
	}
}

func TestANormalUserInstallsItWithoutRoot(t *testing.T) {
	install(t) // as a place to take the programs from
	t.Cleanup(func() { asUser(t, "~/.local/bin/v6node uninstall --user --purge") })
	out := asUser(t, "v6node install --user && ~/.local/bin/v6node demo")
	t.Log(out)
	if !strings.Contains(out, "patients: the same") {
		t.Error("the demonstration did not come to its end")
	}
}
