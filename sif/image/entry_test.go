package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/v6node/v6node/sif/internal/siftest"
)

// runEntry runs the entry script in a shell, on a tree, with an environment, and gives
// what "program" prints.
func runEntry(t *testing.T, shell []string, tree siftest.Tree, env []string, program ...string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range tree {
		p := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	args := slices.Concat(shell[1:], []string{"-c", strings.ReplaceAll(entryScript, "/.singularity.d", dir+"/.singularity.d"), "sh"}, program)
	cmd := exec.Command(shell[0], args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func eachShell(t *testing.T, f func(*testing.T, []string)) {
	ran := false
	for _, shell := range [][]string{{"dash"}, {"bash", "--posix"}, {"busybox", "sh"}, {"sh"}} {
		path, err := exec.LookPath(shell[0])
		if err != nil {
			continue
		}
		ran = true
		t.Run(shell[0], func(t *testing.T) { f(t, append([]string{path}, shell[1:]...)) })
	}
	if !ran {
		t.Fatal("no shell was found")
	}
}

func TestTheEntrypointSourcesTheEnvironmentOfTheImage(t *testing.T) {
	tree := siftest.Apptainer(`
export GREETING="hello from the environment"
export TRICKY="a 'quoted' value with \$dollar and spaces"
export PATH=/opt/image/bin:$PATH HOME=/data
`, "", nil)
	eachShell(t, func(t *testing.T, shell []string) {
		out := runEntry(t, shell, tree, []string{"PATH=/usr/bin:/bin", "HOME=/root"},
			"sh", "-c", `printf '%s\n' "$GREETING" "$TRICKY" "$PATH" "$HOME" "$LD_LIBRARY_PATH" "$1"`, "x", "an argument")
		lines := strings.Split(out, "\n")
		want := []string{"hello from the environment", "a 'quoted' value with $dollar and spaces", "/opt/image/bin:/usr/bin:/bin", "/data", "", "an argument", ""}
		if len(lines) == len(want) && strings.HasSuffix(lines[4], "/.singularity.d/libs") {
			lines[4] = ""
		}
		if !slices.Equal(lines, want) {
			t.Errorf("got %q, want %q", lines, want)
		}
	})
}

func TestWhatTheCallerSetsWinsOverTheImage(t *testing.T) {
	tree := siftest.Apptainer("export INPUT_FILE=/image/input TOKEN=image\n", "", nil)
	value := "line one\nline 'two' \"$HOME\" \\n `id` $(id)"
	eachShell(t, func(t *testing.T, shell []string) {
		out := runEntry(t, shell, tree, []string{"PATH=/usr/bin:/bin", "INPUT_FILE=" + value, "EMPTY="},
			"sh", "-c", `printf '%s|%s|%s' "$INPUT_FILE" "$TOKEN" "${EMPTY-unset}"`)
		if want := value + "|image|"; out != want {
			t.Errorf("got %q, want %q", out, want)
		}
	})
}

func TestTheEntrypointAddsNothingToTheEnvironmentButWhatTheImageSets(t *testing.T) {
	tree := siftest.Tree{".singularity.d/env/90-environment.sh": "export ONLY=this\nlocal_to_the_script=1\n"}
	eachShell(t, func(t *testing.T, shell []string) {
		var names []string
		for line := range strings.Lines(runEntry(t, shell, tree, []string{"PATH=/usr/bin:/bin"}, "env")) {
			name, _, _ := strings.Cut(line, "=")
			if !slices.Contains([]string{"PWD", "OLDPWD", "SHLVL", "_"}, name) { // the shell's own
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if want := []string{"ONLY", "PATH"}; !slices.Equal(names, want) {
			t.Errorf("got %q, want %q", names, want)
		}
	})
}

func TestTheEntrypointEndsAsTheProgramDoes(t *testing.T) {
	eachShell(t, func(t *testing.T, shell []string) {
		cmd := exec.Command(shell[0], slices.Concat(shell[1:], []string{"-c", entryScript, "sh", "sh", "-c", "exit 42"})...)
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != 42 {
			t.Errorf("%v", err)
		}
	})
}
