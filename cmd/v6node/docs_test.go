package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheManualHasEveryCommandAndExitCodeAndTrueOutput(t *testing.T) {
	raw, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	manual := string(raw)
	for _, c := range newApp().Commands {
		if !c.Hidden && !strings.Contains(manual, "`v6node "+c.Name) && !strings.Contains(manual, "`"+c.Name+"`") {
			t.Errorf("the manual does not name the command %s", c.Name)
		}
		if c.Category != "" && (!strings.Contains(c.Description, "Example") || !strings.Contains(c.Description, "   v6node "+c.Name)) {
			t.Errorf("the help of %s has no example", c.Name)
		}
	}
	for code := exitFailure; code <= exitNoKey; code++ {
		if !strings.Contains(manual, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("the manual does not explain exit code %d", code)
		}
	}
	for _, name := range []string{"ps-filter", "stats", "top", "update", "queue", "info", "gc-dry-run"} {
		out, err := os.ReadFile(filepath.Join("testdata", name+".golden"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(manual, "\n"+string(out)+"```") {
			t.Errorf("the manual shows something else than what %s prints", name)
		}
	}
}
