package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func manual(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// sections are keys that only hold others and need no line of their own in the manual.
var sections = []string{"encryption", "policies", "policies.signatures", "runtime", "limits", "limit_rules[].limits", "resources", "resources.reserve", "resources.subtasks", "resources.queue", "logging", "prometheus", "metrics", "sif", "registries", "whitelist", "ssh-tunnels[].ssh", "ssh-tunnels[].ssh.identity", "ssh-tunnels[].tunnel", "ssh-tunnels[].tunnel.bind", "ssh-tunnels[].tunnel.dest", "gc", "gc.images", "gc.logs", "gc.scratch", "gc.records"}

func TestTheManualListsEveryKeyAndNoOther(t *testing.T) {
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, d := parse("full.yaml", "/etc/v6node/full.yaml", data)
	var documented []string
	row := regexp.MustCompile("(?m)^\\| (`[a-z][^|]*?) \\|")
	key := regexp.MustCompile("`([a-z_-]+(?:\\[\\])?(?:\\.[a-z_]+(?:\\[\\])?)*)`")
	_, tables, _ := strings.Cut(manual(t), "## All keys")
	before, _, _ := strings.Cut(tables, "An entry of `allowed_algorithms`")
	_, after, _ := strings.Cut(tables, "### Algorithms")
	for _, m := range row.FindAllStringSubmatch(before+after, -1) {
		for _, k := range key.FindAllStringSubmatch(m[1], -1) {
			if k[1] != "false" {
				documented = append(documented, k[1])
			}
		}
	}
	for _, k := range d.known {
		if !slices.Contains(documented, k) && !slices.Contains(sections, k) {
			t.Errorf("the manual does not mention %s", k)
		}
	}
	for _, k := range documented {
		if !slices.Contains(d.known, k) {
			t.Errorf("the manual mentions %s, which does not exist", k)
		}
	}
	if len(documented) < 60 {
		t.Errorf("only %d keys were found in the manual: has its form changed?", len(documented))
	}
}

func TestTheExamplesOfConnectionsAreAccepted(t *testing.T) {
	data, err := os.ReadFile("../../docs/connections.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(data), "```yaml\n")[1:]
	for _, b := range blocks {
		text, _, _ := strings.Cut(b, "```")
		if _, warnings := mustParse(t, minimal+text); len(warnings) > 0 {
			t.Errorf("%v\n%s", warnings, text)
		}
	}
	if len(blocks) != 4 {
		t.Errorf("%d examples were found", len(blocks))
	}
}

func TestTheManualsExampleIsTrue(t *testing.T) {
	text := manual(t)
	block := func(kind string) string {
		_, rest, ok := strings.Cut(text, "```"+kind+"\n")
		body, _, end := strings.Cut(rest, "```")
		if !ok || !end {
			t.Fatalf("the manual has no block of %s", kind)
		}
		return body
	}
	_, _, err := Parse("alpha.yaml", []byte(block("yaml")))
	if err == nil || err.Error()+"\n" != block("text") {
		t.Errorf("the file in the manual is answered with\n%v", err)
	}
}
