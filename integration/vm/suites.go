package main

import "time"

// suite is a list of tests of one package that are run in the machine.
type suite struct {
	Name    string
	Package string // as `go test` takes it, relative to the repository
	// Tests are the tests by name, or parts of tests: "Test/part". Each has to pass: one that does not exist,
	// does not run, or is skipped or has a skipped part is a failure.
	Tests []string
	// HideSystemd makes the machine look as if it had another init: programs
	// then use control groups directly.
	HideSystemd bool
	Env         map[string]string
	// Installed gives the tests the Debian package instead of the programs alone.
	Installed bool
	Timeout   time.Duration // for the whole list; 30 minutes if 0

	// Only is a pattern of the command line in place of Tests.
	Only string
}

// patience is by what the tests multiply the times that they are ready to wait:
// an emulated machine is slow.
const patience = "5"

// limits is everything about limits, and what an administrator changes of them;
// a CDI device needs no control group's version, but it is tested all the same.
var limits = append([]string{"TestLimitsHoldInRealContainers"},
	partsOf("TestOnEmbeddedContainerd", "an administrator sees a run and changes its limits", "an administrator shortens the time of a run",
		"a run outlives the death of its node", "a kill reaches an algorithm that ignores SIGTERM", "inside a sandbox", "the network ends at the sandbox")...)

// suites is what is run, in this order.
var suites = []suite{
	{
		Name: "limits, systemd driver", Package: "./integration", Tests: limits,
		Env: map[string]string{"V6NODE_TEST_CGROUPS": "systemd v2"},
	},
	{
		Name: "limits, cgroupfs driver", Package: "./integration", Tests: limits, HideSystemd: true,
		Env: map[string]string{"V6NODE_TEST_CGROUPS": "cgroupfs v2"},
	},
	{
		// The user in the machine has an ID of 1000, subordinate IDs, and a
		// systemd of its own with delegated control groups.
		Name: "limits, without root", Package: "./integration",
		Tests: []string{"TestLimitsHoldWithoutRoot", "TestLimitsHoldWithOneUserID"},
		Env:   map[string]string{"V6NODE_TEST_CGROUPS": "cgroupfs v2", "V6NODE_TEST_USER": "hpc"},
	},
	{
		Name: "the Debian package", Package: "./integration/installed", Installed: true,
		Tests: []string{"TestAnInstalledNodeIsAService", "TestANormalUserSeesTheDemonstration", "TestANormalUserInstallsItWithoutRoot"},
	},
}

// partsOf names parts of a test that are run without the others.
func partsOf(test string, parts ...string) []string {
	for i := range parts {
		parts[i] = test + "/" + parts[i]
	}
	return parts
}
