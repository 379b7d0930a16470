package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admin/admintest"
)

func TestFlagsMayStandBehindArguments(t *testing.T) {
	commands := newApp().Commands
	for in, want := range map[string]string{
		"logs 101 -f":                    "logs -f 101",
		"logs 101 --tail 5 -t":           "logs --tail 5 -t 101",
		"logs 101 --tail=5":              "logs --tail=5 101",
		"logs 101 -ftn 5":                "logs -ftn 5 101",
		"update 101 --memory-swap -1":    "update --memory-swap -1 101",
		"update 101 -m 1g latest":        "update -m 1g 101 latest",
		"kill 1 -- -f":                   "kill 1 -- -f",
		"kill -":                         "kill -",
		"ps":                             "ps",
		"ps --no-such 5":                 "ps --no-such 5",
		"cni show x -o json":             "cni show -o json x",
		"cni x show":                     "cni x show",
		"--version":                      "--version",
		"__complete logs 101 -f":         "__complete logs 101 -f",
		"nonsense 101 -f":                "nonsense 101 -f",
		"run x --config f --log-level l": "run --config f --log-level l x",
	} {
		got := flagsFirst(commands, append([]string{"v6node"}, strings.Fields(in)...))
		if strings.Join(got[1:], " ") != want {
			t.Errorf("%q became %q, want %q", in, got[1:], want)
		}
	}
	if got := flagsFirst(commands, []string{"v6node"}); len(got) != 1 {
		t.Errorf("nothing became %q", got)
	}
}

func TestSizesAndTimesAreShownAsPodmanDoes(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1kB", 1_234_567: "1.235MB", 64 << 20: "67.11MB", 2 << 30: "2.147GB", 5e15: "5PB"} {
		if got := humanSize(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "Less than a second", time.Second: "1 second", 59 * time.Second: "59 seconds", 61 * time.Second: "About a minute", 3 * time.Minute: "3 minutes",
		61 * time.Minute: "About an hour", 47 * time.Hour: "47 hours", 72 * time.Hour: "3 days", 21 * 24 * time.Hour: "3 weeks", 90 * 24 * time.Hour: "3 months", 900 * 24 * time.Hour: "2 years",
	} {
		if got := humanDuration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// completed asks the program what the last word can become.
func completed(t *testing.T, words ...string) []string {
	t.Helper()
	var out []string
	for _, c := range candidates(t.Context(), newApp(), words) {
		out = append(out, c.word)
	}
	return out
}

func TestTheProgramCompletesItsOwnWords(t *testing.T) {
	s := hospital()
	s.RunList = append(s.RunList, &admin.Run{ID: 106, State: admin.Held})
	dir := admintest.Serve(t, s, admin.ServerOptions{})
	t.Setenv("V6NODE_STATE_DIR", dir)
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"re"}, "resume reload"},
		{[]string{"check", "--c"}, "--config --cri-endpoint"},
		{[]string{"cni", "in"}, "install"},
		{[]string{"update", "--mem"}, "--memory --memory-swap --memory-reservation"},
		{[]string{"ps", "-o", ""}, "table json"},
		{[]string{"ps", "--output", "j"}, "json"},
		{[]string{"ps", "--output=j"}, "--output=json"},
		{[]string{"ps", "--filter", "status=d"}, "status=delivering status=done"},
		{[]string{"events", "--filter", ""}, "type= run= task="},
		{[]string{"run", "--config", "/etc"}, ":files"},
		{[]string{"run", "--log-level", ""}, "debug info warn error"},
		{[]string{"top", ""}, "latest 104 103 102 106"},
		{[]string{"logs", "-f", "10"}, "105 104 103 102 101 100 106"},
		{[]string{"inspect", "103", "9"}, "99"},
		{[]string{"approve", ""}, "latest 106"},
		{[]string{"key", ""}, "create show upload check"},
		{[]string{"key", "show", ""}, ":files"},
		{[]string{"config", ""}, "check show migrate"},
		{[]string{"config", "show", "-o", ""}, "yaml json"},
		{[]string{"config", "check", "-o", ""}, "table json"},
		{[]string{"config", "migrate", "--env"}, "--environment"},
		{[]string{"config", "migrate", ""}, ":files"},
		{[]string{"init", "--api-key"}, "--api-key-file --api-key-stdin"},
		{[]string{"init", "--api-key-file", ""}, ":files"},
		{[]string{"policy", "test", "--im"}, "--image"},
		{[]string{"key", "upload", "--config", ""}, ":files"},
		{[]string{"completion", ""}, "bash zsh fish"},
		{[]string{"queue", ""}, ""},
		{[]string{"nonsense", ""}, ""},
		{[]string{"cni", "nonsense", ""}, ""},
		{[]string{"ps", "--filter", "reason="}, ""},
		{[]string{"top", "--state-dir", "/nowhere", ""}, "latest"},
		{[]string{"top", "--state-dir=/nowhere", ""}, "latest"},
		{[]string{"update", "--memory", ""}, ""},
		{[]string{"__complete", ""}, ""},
	} {
		if got := strings.Join(completed(t, c.words...), " "); got != c.want {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
	if got := completed(t); !slices.Contains(got, "run") || slices.Contains(got, completeCommandName) {
		t.Errorf("no word at all: %q", got)
	}
}

// withProgram makes v6node a command of the shells that a test starts.
func withProgram(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "v6node")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv(asProgram, "1")
}

func TestBashCompletes(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("needs bash")
	}
	withProgram(t)
	dir := admintest.Serve(t, hospital(), admin.ServerOptions{})
	t.Setenv("V6NODE_STATE_DIR", dir)
	if err := os.WriteFile(filepath.Join(dir, "node one.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ words, want string }{ // as bash cuts them
		{`v6node p`, "ps pause policy"},
		{`v6node logs 10`, "105 104 103 102 101 100"},
		{`v6node ps --output = j`, "json"},
		{`v6node ps --output =`, "table json"},
		{`v6node ps --filter status = run`, "running"},
		{`v6node kill 103 --st`, "--state-dir"},
		{`v6node run --config ` + dir + `/node`, dir + "/node one.yaml"},
	} {
		words := strings.Fields(c.words)
		script := `set -u; source <(v6node completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_WORDBREAKS=$' \t\n"=:'; _v6node; echo "${COMPREPLY[*]}"`
		out, err := exec.CommandContext(t.Context(), "bash", append([]string{"-c", script, "bash"}, words...)...).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%s: %q (%v), want %q", c.words, got, err, c.want)
		}
	}
}

func TestOtherShellsReadTheirScripts(t *testing.T) {
	withProgram(t)
	for _, shell := range []string{"zsh", "fish"} {
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("%s is not installed", shell)
			continue
		}
		out, err := exec.CommandContext(t.Context(), shell, "-c", "v6node completion "+shell+" > $HOME/script; "+shell+" -n $HOME/script").CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
}
