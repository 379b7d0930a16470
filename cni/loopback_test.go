package cni

import (
	"encoding/json"
	"os/exec"
	"testing"

	types040 "github.com/containernetworking/cni/pkg/types/040"
)

// containerd asks for this one first, with CNI 0.3.1 and on lo.
func TestTheLoopbackPluginBringsUpLoAndNothingElse(t *testing.T) {
	in := install(t)
	asLoopback := func(c *exec.Cmd) {
		c.Path, c.Args = in.loopbackFile(), []string{in.loopbackFile()}
		c.Env = append(c.Env, "CNI_IFNAME=lo")
	}
	loConf := func(more string) string {
		return `{"cniVersion":"0.4.0","name":"cni-loopback","type":"loopback"` + more + `}`
	}
	path := newNetns(t)
	_, err := in.run(t, "CHECK", path, loConf(""), asLoopback)
	wantCode(t, "CHECK before ADD", err, codeNetwork, "lo", "down")
	out, err := in.run(t, "ADD", path, loConf(""), asLoopback)
	if err != nil {
		t.Fatal(err)
	}
	var r types040.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.IPs) != 1 || r.IPs[0].Address.String() != "127.0.0.1/8" ||
		len(r.Interfaces) != 1 || r.Interfaces[0].Name != loName || r.Interfaces[0].Sandbox != path {
		t.Errorf("ADD's result: %s: %v", out, err)
	}
	if names, err := open(t, path).links(); err != nil || len(names) != 1 {
		t.Errorf("interfaces: %v, %v", names, err)
	}
	if _, err := in.run(t, "CHECK", path, loConf(`,"prevResult":`+out), asLoopback); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if _, err := in.run(t, "ADD", path, conf("0.4.0")); err != nil {
		t.Errorf("the network's own ADD: %v", err)
	}
	if err := open(t, path).Verify(); err != nil {
		t.Error(err)
	}
	if _, err := in.run(t, "DEL", path, loConf(""), asLoopback); err != nil {
		t.Errorf("DEL: %v", err)
	}
	if err := open(t, path).Verify(); err != nil {
		t.Errorf("after DEL of the loopback: %v", err)
	}
	_, err = in.run(t, "ADD", path, loConf(""))
	wantCode(t, "loopback on eth0", err, 4, "eth0")
}
