package runtime

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maskedPaths are hidden and readonlyPaths cannot be written: the union of what
// the kubelet sends and what runc and crun would do by themselves. containerd
// replaces its own list by the one that is sent, so it has to be complete.
func maskedPaths() []string {
	return []string{
		"/proc/acpi",
		"/proc/asound",
		"/proc/interrupts",
		"/proc/kcore",
		"/proc/keys",
		"/proc/latency_stats",
		"/proc/sched_debug",
		"/proc/scsi",
		"/proc/timer_list",
		"/proc/timer_stats",
		"/sys/devices/virtual/powercap",
		"/sys/firmware",
	}
}

func readonlyPaths() []string {
	return []string{
		"/proc/bus",
		"/proc/fs",
		"/proc/irq",
		"/proc/sys",
		"/proc/sysrq-trigger",
	}
}

// namespaces must be the same on the pod and on its containers: CRI-O refuses a
// difference, containerd follows it silently.
func namespaces(users *IDMap) *cri.NamespaceOption {
	return &cri.NamespaceOption{
		Network:       cri.NamespaceMode_POD,
		Pid:           cri.NamespaceMode_CONTAINER,
		Ipc:           cri.NamespaceMode_POD,
		UsernsOptions: users.options(),
	}
}

// runtimeDefault is never nil where it is used: on both runtimes no seccomp
// profile means no filter at all.
func runtimeDefault() *cri.SecurityProfile {
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
}

func (c *Client) appArmor() *cri.SecurityProfile {
	if !c.info.Load().AppArmor {
		return nil
	}
	return runtimeDefault()
}

func (c *Client) sandboxSecurity(users *IDMap) *cri.LinuxSandboxSecurityContext {
	return &cri.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(users),
		ReadonlyRootfs:   true,
		Privileged:       false,
		Seccomp:          runtimeDefault(),
		Apparmor:         c.appArmor(),
	}
}

func (c *Client) containerSecurity(runAs *int64, users *IDMap) *cri.LinuxContainerSecurityContext {
	sc := &cri.LinuxContainerSecurityContext{
		Capabilities:     &cri.Capability{DropCapabilities: []string{"ALL"}},
		Privileged:       false,
		NamespaceOptions: namespaces(users),
		ReadonlyRootfs:   true,
		NoNewPrivs:       true,
		MaskedPaths:      maskedPaths(),
		ReadonlyPaths:    readonlyPaths(),
		Seccomp:          runtimeDefault(),
		Apparmor:         c.appArmor(),
	}
	if runAs != nil {
		sc.RunAsUser = &cri.Int64Value{Value: *runAs}
	}
	return sc
}
