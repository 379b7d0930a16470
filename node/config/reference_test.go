package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// referenceKeys are those of the reference node's example configuration (vantage6 4.14, docs/node/node_config.yaml), and
// of its code: logging.file, alpine, directories.
var referenceKeys = strings.Fields(`
api_key server_url port api_path task_dir share_config share_algorithm_logs run_context_file vpn_subnet alpine
algorithm_device_requests.gpu algorithm_env node_extra_env node_extra_mounts node_extra_hosts
images.node images.alpine images.vpn_client images.network_config images.ssh_tunnel images.squid
databases[].label databases[].uri databases[].type databases[].mount_mode databases[].env
encryption.enabled encryption.private_key
policies.allowed_algorithms policies.allowed_algorithm_stores policies.allow_either_whitelist_or_store policies.allowed_users
policies.allowed_organizations policies.allow_basics_algorithm policies.require_algorithm_pull
docker_registries[].registry docker_registries[].username docker_registries[].password
ssh-tunnels[].hostname ssh-tunnels[].ssh.host ssh-tunnels[].ssh.port ssh-tunnels[].ssh.fingerprint ssh-tunnels[].ssh.identity.username
ssh-tunnels[].ssh.identity.key ssh-tunnels[].tunnel.bind.ip ssh-tunnels[].tunnel.bind.port ssh-tunnels[].tunnel.dest.ip ssh-tunnels[].tunnel.dest.port
whitelist.domains whitelist.ips whitelist.ports docker_services
logging.level logging.use_console logging.backup_count logging.max_size logging.format logging.datefmt logging.file logging.loggers
debug.socketio debug.proxy_server prometheus.enabled prometheus.report_interval_seconds directories`)

func reference(t *testing.T) (string, *value) {
	t.Helper()
	data, err := os.ReadFile("testdata/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, problems := readDocument("reference.yaml", data)
	if problems != nil {
		t.Fatal(problems)
	}
	return string(data), doc
}

// answered is a row of the manual's table of keys that mean nothing here.
type answered struct {
	keys   []string
	advice string
}

func answeredKeys(t *testing.T) []answered {
	t.Helper()
	_, table, ok := strings.Cut(manual(t), "### Keys of the reference node that are answered by a warning")
	if !ok {
		t.Fatal("the manual has no table")
	}
	var out []answered
	for _, m := range regexp.MustCompile("(?m)^\\| (`.+?) \\| (.+) \\|$").FindAllStringSubmatch(table, -1) {
		a := answered{advice: strings.ReplaceAll(m[2], "`", "")}
		for _, k := range regexp.MustCompile("`([a-z_.]+)`").FindAllStringSubmatch(m[1], -1) {
			if k[1] != "false" {
				a.keys = append(a.keys, k[1])
			}
		}
		out = append(out, a)
	}
	if len(out) < 10 {
		t.Fatalf("only %d rows were found: has the table's form changed?", len(out))
	}
	return out
}

func TestTheTestFileHasEveryKeyOfTheReferenceNode(t *testing.T) {
	_, doc := reference(t)
	var have []string
	doc.walk("", func(key string) { have = append(have, key) })
	for _, k := range referenceKeys {
		if !slices.Contains(have, k) {
			t.Errorf("%s is missing", k)
		}
	}
}

func TestTheReferenceNodesKeysWorkOrAreAnsweredOnceAsTheManualSays(t *testing.T) {
	text, doc := reference(t)
	var tops []string // of the keys that are answered
	for _, row := range answeredKeys(t) {
		for _, key := range row.keys {
			top, inner, nested := strings.Cut(key, ".")
			if !slices.Contains(tops, top) {
				tops = append(tops, top)
			}
			v := doc.at(top)
			if v == nil || nested && v.at(inner) == nil {
				t.Errorf("%s is in the manual and not in the reference node's file", key)
				continue
			}
			if nested {
				v = object(inner, v.at(inner))
			}
			alone, err := object(top, v).yaml("")
			if err != nil {
				t.Fatal(err)
			}
			_, warnings := mustParse(t, minimal+string(alone))
			if len(warnings) != 1 || !strings.HasPrefix(warnings[0].Message, top+": ") || !strings.Contains(warnings[0].Message, " not used; "+row.advice) {
				t.Errorf("%s alone is answered with %q; the manual says %q", key, warnings, row.advice)
			}
		}
	}
	_, warnings := mustParse(t, text)
	var got []string
	for _, w := range warnings {
		got = append(got, w.Key)
	}
	slices.Sort(got)
	slices.Sort(tops)
	if !slices.Equal(got, tops) {
		t.Errorf("the whole file is warned of %q, the manual says %q", got, tops)
	}
}

func TestTheManualSaysOfEachKeyOfTheReferenceNodeThatItIsOne(t *testing.T) {
	tables := manual(t)
	var v4 []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z][^`]*)` \\|.*\\| v4 \\|$").FindAllStringSubmatch(tables, -1) {
		v4 = append(v4, m[1])
	}
	var warned []string
	for _, row := range answeredKeys(t) {
		warned = append(warned, row.keys...)
	}
	_, d := parse("reference.yaml", "/etc/v6node/reference.yaml", []byte(minimal))
	for _, k := range referenceKeys {
		section, _, _ := strings.Cut(k, ".")
		works, answered := slices.Contains(v4, k), slices.Contains(warned, k) || slices.Contains(warned, section)
		if k == "logging.format" { // works with words of its own, and is answered if it is of Python's logging
			works, answered = false, answered && slices.Contains(d.known, k)
		}
		if works == answered {
			t.Errorf("%s: by the manual it works: %v, is answered: %v", k, works, answered)
		}
		if works && !slices.Contains(d.known, k) {
			t.Errorf("%s is in the manual, and the node does not know it", k)
		}
	}
	for _, k := range v4 {
		if !slices.Contains(referenceKeys, k) && !slices.Contains([]string{"databases", "docker_registries", "ssh-tunnels"}, k) {
			t.Errorf("%s is said to be a key of the reference node, and is none", k)
		}
	}
}

func TestNamesOfDockerAreAnsweredWithWhatStandsForThem(t *testing.T) {
	const uri = "databases: [{label: a, uri: 'postgres://host.docker.internal:5432/x', type: sql}]\n"
	_, warnings := mustParse(t, minimal+uri)
	if len(warnings) != 1 || !strings.Contains(warnings[0].Message, "write under services host.docker.internal:5432: 127.0.0.1:5432") {
		t.Errorf("%q", warnings)
	}
	c, warnings := mustParse(t, minimal+uri+"services: {'host.docker.internal:5432': '127.0.0.1:5432'}\n")
	if len(warnings) != 0 || len(c.Services) != 1 {
		t.Errorf("with the service: %q", warnings)
	}
	text, _ := reference(t)
	_, warnings = mustParse(t, strings.Replace(text, "ip: 0.0.0.0", "ip: 10.1.1.1", 1))
	if n := len(warnings); n == 0 || !slices.ContainsFunc(warnings, func(w Warning) bool { return w.Key == "ssh-tunnels[0].tunnel.bind.ip" }) {
		t.Errorf("%q", warnings)
	}
}

func TestTheReferenceNodesFileMigratesToOneWithoutWarnings(t *testing.T) {
	text, _ := reference(t)
	m, err := migrate("/srv/v6/site.yaml", "/etc/v6node/site.yaml", "", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, warnings, err := Parse("/etc/v6node/site.yaml", m.Text)
	if err != nil || len(warnings)+len(m.Warnings) != 0 {
		t.Fatalf("%v, %q, %q\n%s", err, warnings, m.Warnings, m.Text)
	}
	before, _, err := Parse("/etc/v6node/site.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	// The reference node gives every run all GPUs; v6node only by limits.
	if d := Differences(before, c); fmt.Sprint(d) != "[limits]" {
		t.Errorf("%q differ", d)
	}
	for _, k := range referenceKeys {
		section, _, _ := strings.Cut(k, ".")
		list, _, _ := strings.Cut(k, "[")
		if !slices.ContainsFunc(m.Changes, func(c Migration) bool {
			key := indices.ReplaceAllString(c.Key, "[]")
			return key == k || key == section || key == list || strings.HasPrefix(key, list+"[")
		}) {
			t.Errorf("nothing is said of %s", k)
		}
	}
}
