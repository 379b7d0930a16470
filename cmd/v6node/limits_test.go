package main

import (
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/limits"
)

// limitsFrom reads flags over a file's limits.
func limitsFrom(t *testing.T, file limits.Limits, args ...string) (limits.Limits, error) {
	t.Helper()
	cfg := &config.Config{Limits: file}
	app := &cli.App{
		Name: "v6node", Flags: limitFlags(), Writer: io.Discard, ErrWriter: io.Discard, ExitErrHandler: func(*cli.Context, error) {},
		Action: func(c *cli.Context) error { return overrideLimits(cfg, c) },
	}
	err := app.Run(append([]string{"v6node"}, args...))
	return cfg.Limits, err
}

func TestFlagsAreReadAsPodmanDoes(t *testing.T) {
	got, err := limitsFrom(t, limits.Limits{Memory: 1, Pids: 5, OutputSize: 9, Ulimits: []limits.Ulimit{{Name: "core"}}},
		"-m", "2g", "--memory-swap", "-1", "--memory-reservation=512m", "--cpus", "1.5", "--cpu-shares", "512", "--cpuset-cpus", "0-1,3", "--cpuset-mems", "0",
		"--pids-limit", "-1", "--shm-size", "128m", "--ulimit", "nofile=1024:4096", "--ulimit", "nproc=10", "--tmpfs-size", "1g",
		"--device", "nvidia.com/gpu=0", "--device", "vendor.com/fpga:2", "--oom-score-adj", "-500", "--scratch-size", "20g", "--timeout", "90")
	want := limits.Limits{
		Memory: 2 << 30, MemorySwap: -1, MemoryReservation: 512 << 20, CPUs: 1.5, CPUShares: 512, CpusetCpus: "0-1,3", CpusetMems: "0", ShmSize: 128 << 20,
		Ulimits: []limits.Ulimit{{Name: "nofile", Soft: 1024, Hard: 4096}, {Name: "nproc", Soft: 10, Hard: 10}}, TmpfsSize: 1 << 30,
		Devices: []limits.Device{{Kind: "nvidia.com/gpu", Name: "0"}, {Kind: "vendor.com/fpga", Count: 2}}, OOMScoreAdj: new(int64(-500)),
		OutputSize: 9, ScratchSize: 20 << 30, Timeout: 90 * time.Second,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v (%v)\nwant %+v", got, err, want)
	}
	if got, err := limitsFrom(t, want); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("without flags: %+v, %v", got, err)
	}
}

func TestAWrongFlagIsNamed(t *testing.T) {
	for args, want := range map[string]string{
		"--memory lots":                  `--memory: "lots" is not a size`,
		"--pids-limit some":              "--pids-limit: it must be a whole number",
		"--ulimit files=3":               `--ulimit: "files" is none of the ulimits`,
		"--device /dev/fuse":             "--device: \"/dev/fuse\" is a path",
		"--memory-swap 1g":               "--memory-swap does not fit the other limits: it needs a limit of memory",
		"--memory 1g --memory-swap 512m": "--memory-swap does not fit",
		"--timeout soon":                 "--timeout:",
	} {
		_, err := limitsFrom(t, limits.Limits{}, strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		} else if c, ok := err.(cli.ExitCoder); !ok || c.ExitCode() != exitUsage {
			t.Errorf("%s: %v has another exit code than %d", args, err, exitUsage)
		}
	}
}
