package cdi

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDevicesOfAllFilesAreKnown(t *testing.T) {
	etc, run := t.TempDir(), t.TempDir()
	write(t, etc, "gpu.yaml", "cdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits: {deviceNodes: [{path: /dev/null}]}\n- name: all\n")
	write(t, run, "more.json", `{"cdiVersion":"0.6.0","kind":"vendor.com/gpu","devices":[{"name":"1"},{"name":"0"}]}`)
	write(t, run, "other.json", `{"kind":"vendor.com/fpga","devices":[{"name":"x"}]}`)
	write(t, run, "notes.txt", "not a device")
	got, err := Devices(etc, run, filepath.Join(run, "none"))
	if want := "map[vendor.com/fpga:[x] vendor.com/gpu:[0 all 1]]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
}

func TestABrokenFileHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.json", `{"kind":`)
	write(t, dir, "b.yaml", "devices: []")
	write(t, dir, "c.yaml", "kind: vendor.com/gpu\ndevices: [{name: 0}]")
	got, err := Devices(dir)
	if fmt.Sprint(got) != "map[vendor.com/gpu:[0]]" || err == nil || !strings.Contains(err.Error(), "a.json") || !strings.Contains(err.Error(), "b.yaml") {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzDevices(f *testing.F) {
	f.Add("kind: a.b/c\ndevices: [{name: 0}]")
	f.Add(`{"kind":"a.b/c"}`)
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		write(t, dir, "a.yaml", text)
		if got, err := Devices(dir); err == nil && got[""] != nil {
			t.Errorf("a device without a kind: %v", got)
		}
	})
}
