package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// machine is a virtual machine that runs until its tests are over.
type machine struct {
	image    image
	payload  string
	dir      string // for the copy of the disk and the console
	accel    string
	cpus     int
	memory   string
	bootTime time.Duration
}

// kernelArgs: what takes time and tests nothing of ours is left out: the kernel's
// protection from its own processes, its tests of ciphers, and drivers that udev
// would load for what the emulated processor can do.
const kernelArgs = "root=/dev/vda rw console=ttyS0 loglevel=4 panic=-1 mitigations=off audit=0 cryptomgr.notests " +
	"module_blacklist=kvm,kvm_amd,kvm_intel,powernow_k8,acpi_cpufreq,aesni_intel,ghash_clmulni_intel,sha512_ssse3,sha256_ssse3,sha1_ssse3,crct10dif_pclmul,psmouse,pcspkr " +
	"systemd.unified_cgroup_hierarchy=1 systemd.show_status=0 net.ifnames=0"

func (m *machine) console() string { return filepath.Join(m.dir, "console.log") }

// run starts the machine, passes on what it says, and returns when it is off.
// When ctx ends, or it is not up in time, it is switched off.
func (m *machine) run(ctx context.Context, hear func(line string, n *note) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	boot := time.AfterFunc(m.bootTime, func() {
		cancel(fmt.Errorf("the machine did not come up within %s", m.bootTime))
	})
	defer boot.Stop()
	cmd := command(ctx, "qemu-system-x86_64",
		"-accel", m.accel, "-cpu", "max", "-smp", fmt.Sprint(m.cpus), "-m", m.memory,
		"-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", m.image.kernel, "-initrd", m.image.initrd, "-append", kernelArgs,
		// What is written to the first disk goes to a nameless file.
		"-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,file="+m.image.root,
		"-drive", "if=virtio,format=raw,readonly=on,file="+m.payload,
		"-device", "virtio-rng-pci",
		"-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net",
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=port,signal=off", "-device", "virtserialport,chardev=port,name="+port,
		"-serial", "file:"+m.console())
	cmd.Env = append(os.Environ(), "TMPDIR="+m.dir)
	// The port is this program's standard input and output. Nothing is sent.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var problems strings.Builder
	cmd.Stderr = &problems
	if err := cmd.Start(); err != nil {
		return err
	}
	heard := lines(stdout, func(line string, n *note) error {
		if n != nil && n.Ready != nil {
			boot.Stop()
		}
		return hear(line, n)
	})
	if heard != nil {
		cancel(heard)
		_, _ = io.Copy(io.Discard, stdout) // until it is off
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("qemu: %w: %s", err, strings.TrimSpace(problems.String()))
	}
	return nil
}

// lastWords is the end of what the kernel and systemd wrote to the console.
func (m *machine) lastWords() string {
	b, err := os.ReadFile(m.console())
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return ""
		}
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}
