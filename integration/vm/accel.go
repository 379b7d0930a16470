package main

import (
	"context"
	"time"
)

// kvmTime is far more than a kernel needs under KVM until it misses its root
// file system and gives up, by a few seconds.
const kvmTime = 20 * time.Second

// accelerator chooses how the machine's processor is made. That /dev/kvm can be
// opened says little inside of another virtual machine, where a guest may stop
// before its first message, so the kernel is started to its panic.
func accelerator(ctx context.Context, im image) string {
	ctx, cancel := context.WithTimeout(ctx, kvmTime)
	defer cancel()
	err := command(ctx, "qemu-system-x86_64", "-accel", "kvm", "-cpu", "max", "-m", "512M",
		"-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", im.kernel, "-append", "panic=-1").Run()
	if err == nil {
		return "kvm"
	}
	return "tcg,thread=multi"
}
