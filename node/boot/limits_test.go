package boot

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/limits"
)

const minimal = "server_url: https://v6.example.org\napi_key: x\n"

func TestWhatAMachineCannotHoldIsSaidAtTheStart(t *testing.T) {
	m := limits.Machine{Memory: 1 << 30, CPUs: map[int]bool{0: true}}
	for text, want := range map[string]struct{ err, log string }{
		"limits: {cpuset_cpus: 5}":                                    {"limits.cpuset_cpus: this machine has no CPU 5", ""},
		"limits: {cpuset_cpus: 5}\nresources: {enforce: best-effort}": {"", "this machine has no CPU 5; runs go on without it"},
		"limits: {memory: 2g}":                                        {"", "limits.memory: 2 GiB is more than the machine has (1 GiB)"},
		"limit_rules:\n  - {image: a/b, limits: {pids: 5}}\n  - {image: a/b, limits: {cpuset_cpus: 5}}": {"limit_rules[1].limits.cpuset_cpus", ""},
		"limits: {memory: 1g, cpuset_cpus: 0}":                                                          {"", ""},
	} {
		cfg, _, err := config.Parse("node.yaml", []byte(minimal+text))
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		err = checkLimits(t.Context(), cfg, m, slog.New(slog.NewTextHandler(&log, nil)))
		if want.err == "" && err != nil || want.err != "" && (!errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), want.err)) {
			t.Errorf("%s: %v, want %q", text, err, want.err)
		}
		if (want.log == "") != (log.Len() == 0) || !strings.Contains(log.String(), want.log) {
			t.Errorf("%s: logged %s, want %q", text, &log, want.log)
		}
	}
}

func TestThereIsAHandlerForEachListOfUlimits(t *testing.T) {
	cfg, _, err := config.Parse("node.yaml", []byte(minimal+"limits: {ulimits: nofile=10:-1}\nlimit_rules:\n  - {image: a/b, limits: {ulimits: [core=0, stack=5]}}\n  - {image: c/d, limits: {ulimits: nofile=10:-1}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := ulimitHandlers(cfg)
	if len(got) != 2 || got[0].Name == got[1].Name || got[0].Rlimits[0].Type != "RLIMIT_NOFILE" || got[0].Rlimits[0].Hard != 1<<64-1 || len(got[1].Rlimits) != 2 {
		t.Errorf("%+v", got)
	}
}
