//go:build linux

package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestGroupAndLimitsAreTakenOut(t *testing.T) {
	const config = `{"ociVersion":"1.3.0","process":{"args":["/a"],"big":12345678901234567890},
		"linux":{"cgroupsPath":"/k8s.io/1","resources":{"memory":{"limit":1}},"namespaces":[{"type":"pid"}]}}`
	got, err := withoutCgroup([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got), "12345678901234567890") {
		t.Errorf("a number was changed: %s", got)
	}
	var have, want map[string]any
	if err := json.Unmarshal(got, &have); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(config), &want); err != nil {
		t.Fatal(err)
	}
	want["linux"] = map[string]any{"namespaces": want["linux"].(map[string]any)["namespaces"]}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("%v, want %v", have, want)
	}
	for _, bad := range []string{"", "[]", `{"linux":1}`} {
		if _, err := withoutCgroup([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestTheBundleIsFoundInTheArguments(t *testing.T) {
	for line, want := range map[string]string{
		"--root /r --log /l create --bundle /b --pid-file /p 1": "/b",
		"create --bundle=/b 1":           "/b",
		"run -b /b 1":                    "/b",
		"--root /r delete --force 1":     "",
		"create --bundle":                "",
		"--root /r kill --all 1 SIGKILL": "",
	} {
		if got := bundleOf(strings.Fields(line)); got != want {
			t.Errorf("%s: %q", line, got)
		}
	}
}

func TestTheGroupOfTerminalsIsTakenOut(t *testing.T) {
	const config = `{"mounts":[{"destination":"/dev/pts","type":"devpts","options":["nosuid","gid=5","mode=0620"]},{"type":"tmpfs","options":["gid=5"]},{"type":"bind"}],"x":12345678901234567890}`
	got, err := withoutTerminalGroup([]byte(config))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"mounts":[{"destination":"/dev/pts","options":["nosuid","mode=0620"],"type":"devpts"},{"options":["gid=5"],"type":"tmpfs"},{"type":"bind"}],"x":12345678901234567890}`
	if string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, bad := range []string{"", "[]", `{"mounts":1}`} {
		if _, err := withoutTerminalGroup([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
