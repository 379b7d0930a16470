package cni

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

func TestParseConfAcceptsWhatRuntimesSend(t *testing.T) {
	for _, data := range []string{
		conf("0.3.1"),
		conf("1.1.0", `,"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"cni.dev/attachments":null`),
		conf("1.0.0", `,"args":{"labels":[]},"prevResult":null`),
		conf("0.4.0", `,"prevResult":{"ips":[{"version":"4","address":"192.0.2.2/32"}]}`),
		conf("1.0.0") + "\n\t ",
	} {
		if _, err := parseConf([]byte(data)); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func TestParseConfRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"nothing":                      "",
		"null":                         "null",
		"a list":                       "[]",
		"two objects":                  conf("1.0.0") + conf("1.0.0"),
		"rubbish behind it":            conf("1.0.0") + "x",
		"no name":                      `{"cniVersion":"1.0.0","type":"v6node"}`,
		"no type":                      `{"cniVersion":"1.0.0","name":"x"}`,
		"no version":                   `{"name":"x","type":"v6node"}`,
		"a version that we lack":       conf("0.3.0"),
		"a key in other letters":       `{"cniVersion":"1.0.0","name":"x","Type":"v6node"}`,
		"a number as name":             `{"cniVersion":"1.0.0","name":1,"type":"v6node"}`,
		"a DNS server":                 conf("1.0.0", `,"dns":{"nameservers":["8.8.8.8"]}`),
		"an address manager":           conf("1.0.0", `,"ipam":{}`),
		"a result that is no object":   conf("1.0.0", `,"prevResult":3`),
		"a result with null addresses": conf("1.0.0", `,"prevResult":{"ips":[null]}`),
		"an old result of nulls":       conf("0.4.0", `,"prevResult":{"interfaces":[null],"routes":[null]}`),
		"a result with odd lists":      conf("1.0.0", `,"prevResult":{"ips":{}}`),
		"too much":                     conf("1.0.0") + strings.Repeat(" ", maxConf),
	} {
		if c, err := parseConf([]byte(data)); !errors.Is(err, errConf) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func FuzzParseConf(f *testing.F) {
	f.Add([]byte(conf("1.0.0")))
	f.Add([]byte(conf("0.4.0", `,"prevResult":{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"/n"}],`+
		`"ips":[{"version":"4","interface":0,"address":"192.0.2.2/32"}],"dns":{}}`)))
	f.Add([]byte(conf("1.1.0", `,"prevResult":{"interfaces":[null],"ips":[{"address":"::1/128"}],"routes":[{"dst":"0.0.0.0/0","table":1}]}`)))
	f.Add([]byte(conf("1.1.0", `,"cni.dev/valid-attachments":[]`)))
	f.Add(ConfList())
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConf(data)
		if err != nil {
			if c != nil || !errors.Is(err, errConf) {
				t.Fatalf("%+v, %v", c, err)
			}
			return
		}
		if c.Name == "" || !slices.Contains(supportedVersions(), c.CNIVersion) {
			t.Fatalf("accepted %+v", c)
		}
		if c.Prev != nil {
			for _, i := range c.Prev.Interfaces {
				_ = i.Name
			}
			for _, i := range c.Prev.IPs {
				prefixOf(&i.Address)
			}
			for _, r := range c.Prev.Routes {
				prefixOf(&r.Dst)
			}
		}
	})
}

func FuzzForeignConf(f *testing.F) {
	f.Add(ConfList())
	f.Add([]byte(`{"name":"cbr0","cniVersion":"0.3.1","plugins":[{"type":"flannel"},{"type":"portmap"}]}`))
	f.Add([]byte(`{"type":"loopback"}`))
	f.Add([]byte(`{"name":"n","managedBy":"v6node","plugins":[{"type":"bridge"}],"Plugins":[{"type":"v6node"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		describeConf(data)
		if !confIsOurs(data) {
			return
		}
		// What a runtime makes of it must then be our plugin and nothing else.
		list, err := libcni.NetworkConfFromBytes(data)
		if err != nil {
			return
		}
		for _, p := range list.Plugins {
			if p.Network.Type != PluginName {
				t.Fatalf("taken for ours, although it has the plugin %q", p.Network.Type)
			}
		}
	})
}
