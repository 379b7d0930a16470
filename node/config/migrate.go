package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/node/reach"
)

// What migration does with a key.
const (
	Kept     = "kept"
	Renamed  = "renamed"   // to another key
	Replaced = "replaced"  // by another key that does the same
	Changed  = "changed"   // its value is written in another way
	NoEffect = "no effect" // left out: it means nothing here
)

// Migration is what becomes of one key of the reference node's file.
type Migration struct {
	Key    string `json:"key"`            // as it stands in that file: "logging.file"
	Line   int    `json:"line,omitempty"` // there
	Change string `json:"change"`         // Kept, Renamed, Replaced, Changed or NoEffect
	To     string `json:"to,omitempty"`   // the key that does its work now
	Note   string `json:"note,omitempty"` // one sentence without a full stop
}

// Migrated is the reference node's file in this node's own form.
type Migrated struct {
	Text        []byte      // of the new file; holds whatever secrets the old one held
	Environment string      // of a file with environments, the one that was taken
	Changes     []Migration // in the order of the old file's lines
	Warnings    []Warning   // what the new file will be warned of, by the old one's lines
}

// Migrate rewrites the file at path for a new place, to. environment chooses among the sections of vantage6 3; "" takes
// application, or the only one there is. Nothing is written. Errors wrap ErrInvalid and tell the old file's lines: what
// cannot be taken over, an unknown key for one, stops the migration, so that nothing is lost in silence.
func Migrate(path, to, environment string) (*Migrated, error) {
	data, _, err := readLimited(path, maxFile+1)
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be read: %w: name the reference node's file", ErrInvalid, err)
	}
	return migrate(path, to, environment, data)
}

func migrate(path, to, environment string, data []byte) (*Migrated, error) {
	doc, problems := readDocument(path, data)
	if problems != nil {
		return nil, problems
	}
	from, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if to, err = filepath.Abs(to); err != nil {
		return nil, err
	}
	m := &migrator{file: path, from: filepath.Dir(from), to: filepath.Dir(to)}
	root, err := m.choose(doc, environment)
	if err != nil {
		return nil, err
	}
	m.sections(root)
	// Paths are completed first: the decoder takes them from where the new file is.
	c, d := decode(path, to, root)
	if d.problems = append(d.problems, m.problems...); len(d.problems) > 0 {
		return nil, d.verdict()
	}
	m.kept(root)
	slices.SortStableFunc(m.changes, func(a, b Migration) int { return a.Line - b.Line })
	text, err := root.yaml(m.head(path))
	if err != nil {
		return nil, err
	}
	text = append(text, m.tail...)
	again, _, err := Parse(to, text)
	if err != nil {
		return nil, fmt.Errorf("the new file would not be read as the old one is, so nothing is written: %w", err)
	}
	if diff := Differences(c, again); len(diff) > 0 {
		return nil, fmt.Errorf("%w: the new file would not say the same about %s, so nothing is written: write the file by hand", ErrInvalid, strings.Join(diff, ", "))
	}
	return &Migrated{Text: text, Environment: m.environment, Changes: m.changes, Warnings: d.warnings}, nil
}

// migrator rewrites a document in place.
type migrator struct {
	file        string
	from, to    string // directories of the old and the new file
	environment string
	changes     []Migration
	problems    Problems
	tail        string // of the new file: what the administrator has to complete
}

func (m *migrator) did(line int, key, change, to, note string, a ...any) {
	m.changes = append(m.changes, Migration{key, line, change, to, fmt.Sprintf(note, a...)})
}

func (m *migrator) head(path string) string {
	return "# Made by v6node config migrate from " + strings.Map(func(r rune) rune {
		if r < ' ' {
			return '_'
		}
		return r
	}, filepath.Base(path)) + ".\n# All keys: docs/configuration.md\n"
}

// choose finds the section that holds the settings.
func (m *migrator) choose(doc *value, environment string) (*value, error) {
	wrong := func(line int, format string, a ...any) error {
		return Problems{{File: m.file, Line: line, Message: fmt.Sprintf(format, a...)}}
	}
	if problems := noConfiguration(m.file, doc); problems != nil {
		return nil, problems
	}
	if doc.kind == null {
		return nil, wrong(doc.line, "the file is empty; name the node's configuration")
	}
	type part struct {
		name string
		line int
		val  *value
	}
	var parts []part
	var others []field
	for _, f := range doc.fields {
		switch f.key {
		case "application":
			parts = append(parts, part{f.key, f.line, f.val})
		case "environments":
			for _, e := range f.val.fields {
				parts = append(parts, part{e.key, e.line, e.val})
			}
			if f.val.kind == scalar || f.val.kind == list {
				return nil, wrong(f.line, "environments must be a section with a section for each environment, not %s", describe(f.val))
			}
		default:
			others = append(others, f)
		}
	}
	if len(parts) == 0 {
		if environment != "" {
			return nil, wrong(0, "the file has no environments; leave out --environment")
		}
		return doc, nil
	}
	if len(others) > 0 {
		return nil, wrong(others[0].line, "%q stands beside the sections application and environments; move it into one of them", clip(others[0].key))
	}
	var full []part
	var names []string
	for _, p := range parts {
		if p.val.kind == mapping && len(p.val.fields) > 0 {
			full, names = append(full, p), append(names, p.name)
		}
	}
	at := slices.IndexFunc(full, func(p part) bool { return p.name == environment || environment == "" && p.name == "application" })
	switch {
	case len(full) == 0:
		return nil, wrong(0, "the sections of the file are empty")
	case at < 0 && environment != "":
		return nil, wrong(0, "there are no settings for the environment %q; there are some for %s", clip(environment), clip(strings.Join(names, ", ")))
	case at < 0 && len(full) > 1:
		return nil, wrong(0, "there are settings for %s; choose one with --environment", clip(strings.Join(names, ", ")))
	case at < 0:
		at = 0
	}
	for _, p := range parts {
		if p.name == full[at].name {
			m.did(p.line, p.name, Changed, "", "its keys stand at the top of the file now")
		} else {
			m.did(p.line, p.name, NoEffect, "", "settings of another environment: migrate them into a file of their own, with --environment %s", clip(p.name))
		}
	}
	m.environment = full[at].name
	return full[at].val, nil
}

// sections goes through all that the two nodes write differently.
func (m *migrator) sections(root *value) {
	for _, r := range replaced {
		m.without(root, "", r.key, r.instead)
	}
	m.images(root)
	m.databases(root)
	m.tunnels(root)
	m.whitelist(root)
	m.logging(root)
	m.devices(root)
	m.containers(root)
	if v := root.at("task_dir"); v != nil && v.kind == scalar && isWindowsPath(v.text) {
		m.without(root, "", "task_dir", "a Windows path; tasks are in the node's state_dir")
	}
	for _, key := range []string{"ca_file", "api_key_file", "state_dir", "task_dir"} {
		m.path(root.at(key), key)
	}
	if e := root.at("encryption"); e.at("enabled") != nil && e.at("enabled").text != "false" {
		m.path(e.at("private_key"), "encryption.private_key")
		m.path(e.at("passphrase_file"), "encryption.passphrase_file")
	}
	m.paths(root.at("policies").at("signatures").at("keys"), "policies.signatures.keys")
	m.paths(root.at("sif").at("directories"), "sif.directories")
	m.paths(root.at("sif").at("keys"), "sif.keys")
}

// without leaves a key out.
func (m *migrator) without(s *value, path, key, note string) {
	if s == nil || s.kind != mapping {
		return
	}
	for _, f := range s.fields {
		if f.key == key {
			m.did(f.line, path+key, NoEffect, "", "%s", note)
		}
	}
	s.drop(key)
}

// images moves what vantage6 3 called allowed_images.
func (m *migrator) images(root *value) {
	old := root.at("allowed_images")
	if old == nil {
		return
	}
	p := root.at("policies")
	if p == nil {
		p = &value{kind: mapping, line: old.line}
		root.set("policies", p)
	}
	if p.at("allowed_algorithms") != nil {
		m.problems = append(m.problems, Problem{m.file, old.line, "allowed_images", "allowed_images and policies.allowed_algorithms are both given, and which of them decided depends on the reference node's version; keep one"})
		return
	}
	if p.kind != mapping {
		return // the decoder says so
	}
	p.set("allowed_algorithms", old)
	m.did(root.lineOf("allowed_images"), "allowed_images", Renamed, "policies.allowed_algorithms", "%s", wholeNames)
	root.drop("allowed_images")
}

const wholeNames = "an entry is held against the whole name of an image, not its beginning"

// databases writes the old form as a list, and says what the reference node leaves open.
func (m *migrator) databases(root *value) {
	v := root.at("databases")
	if v == nil {
		return
	}
	if v.kind == mapping {
		items := &value{kind: list, line: v.line}
		for _, f := range v.fields {
			items.items = append(items.items, fromPair(f))
		}
		m.did(root.lineOf("databases"), "databases", Changed, "databases", "a list of label, uri and type; look whether each type is right")
		root.set("databases", items)
		v = items
	}
	if v.kind != list {
		return
	}
	for i, db := range v.items {
		path := fmt.Sprintf("databases[%d]", i)
		mode, kind, uri := db.at("mount_mode"), db.at("type"), db.at("uri")
		isFolder := kind != nil && strings.EqualFold(kind.text, "folder")
		if mode != nil && strings.EqualFold(mode.text, MountCopy) && !isFolder {
			db.drop("mount_mode")
			m.did(mode.line, path+".mount_mode", NoEffect, "", "nothing is copied: it is mounted read-only in the same place")
		}
		if isFolder && (mode == nil || !strings.EqualFold(mode.text, MountReadOnly)) {
			db.set("mount_mode", words(MountReadOnly))
			m.did(db.line, path+".mount_mode", Changed, path+".mount_mode", "the folder is mounted read-only; the reference node let algorithms write to it")
		}
		if uri == nil || uri.kind != scalar || kind == nil {
			continue
		}
		if slices.Contains(fileTypes, strings.ToLower(kind.text)) || strings.HasPrefix(uri.text, "./") || strings.HasPrefix(uri.text, "../") {
			m.path(uri, path+".uri")
			continue
		}
		m.machine(root, uri, path+".uri")
	}
}

// machine makes a service of an address that means the machine by Docker's name for it.
func (m *migrator) machine(root, uri *value, key string) {
	found, err := reach.Endpoints(uri.text)
	if err != nil {
		return // the decoder warns of it
	}
	for _, at := range found {
		if at.Host == dockerBridge {
			m.did(uri.line, key, Kept, "", "%s", bridgeNote)
		}
		if at.Host != dockerHost || m.tunnelled(root, at) {
			continue
		}
		s := root.at("services")
		if s == nil {
			s = &value{kind: mapping, line: uri.line}
			root.set("services", s)
		}
		if s.kind != mapping || s.at(at.String()) != nil {
			continue
		}
		here := hostport.Pair{Host: "127.0.0.1", Port: at.Port}
		s.set(at.String(), words(here.String()))
		m.did(uri.line, key, Replaced, "services", "%s is Docker's name for this machine: runs find port %d of it under that name", dockerHost, at.Port)
	}
}

// tunnelled tells whether an SSH tunnel has this name.
func (m *migrator) tunnelled(root *value, at hostport.Pair) bool {
	v := root.at("ssh-tunnels")
	return v != nil && slices.ContainsFunc(v.items, func(t *value) bool {
		name := t.at("hostname")
		return name != nil && strings.EqualFold(name.text, at.Host)
	})
}

// dockerBridge is the usual address of the machine as containers of Docker see it.
const (
	dockerBridge = "172.17.0.1"
	bridgeNote   = dockerBridge + " is Docker's bridge, which goes with Docker: this machine is 127.0.0.1 for v6node"
)

func (m *migrator) tunnels(root *value) {
	v := root.at("ssh-tunnels")
	if v == nil || v.kind != list {
		return
	}
	for i, t := range v.items {
		path := fmt.Sprintf("ssh-tunnels[%d].", i)
		ssh := t.at("ssh")
		// The manual of vantage6 3 shows it there.
		if inner := ssh.at("tunnel"); inner != nil && t.at("tunnel") == nil {
			t.set("tunnel", inner)
			m.did(ssh.lineOf("tunnel"), path+"ssh.tunnel", Renamed, path+"tunnel", "")
			ssh.drop("tunnel")
		}
		m.without(t.at("tunnel").at("bind"), path+"tunnel.bind.", "ip", "a tunnel listens in the runs' sandboxes only")
		if host := ssh.at("host"); host != nil && host.text == dockerHost {
			host.text = "127.0.0.1"
			m.did(host.line, path+"ssh.host", Changed, path+"ssh.host", "%s is Docker's name for this machine", dockerHost)
		} else if host != nil && host.text == dockerBridge {
			m.did(host.line, path+"ssh.host", Kept, "", "%s", bridgeNote)
		}
		m.path(ssh.at("identity").at("key"), path+"ssh.identity.key")
	}
}

func (m *migrator) whitelist(root *value) {
	w := root.at("whitelist")
	if v := w.at("domains"); v != nil && v.kind == list {
		v.items = slices.DeleteFunc(v.items, func(i *value) bool {
			if i.text != dockerHost {
				return false
			}
			m.did(i.line, "whitelist.domains", NoEffect, "services", "%s is Docker's name for this machine: write what runs are to reach on it under services, such as %s:8080: 127.0.0.1:8080", dockerHost, dockerHost)
			return true
		})
	}
	if v := w.at("ips"); v != nil && slices.ContainsFunc(v.items, func(i *value) bool { return i.text == dockerBridge }) {
		m.did(w.lineOf("ips"), "whitelist.ips", Kept, "", "%s", bridgeNote)
	}
}

func (m *migrator) logging(root *value) {
	l := root.at("logging")
	if l == nil || l.kind != mapping {
		return
	}
	const note = "the node writes one log to standard error, where systemd's journal keeps, dates and rotates it"
	unused := slices.Concat(unusedTexts, unusedNumbers, []string{"use_console", "loggers"})
	for _, f := range slices.Clone(l.fields) {
		if slices.Contains(unused, f.key) || f.key == "format" && pythonFormat(f.val) {
			m.without(l, "logging.", f.key, note)
		}
	}
	if len(l.fields) == 0 {
		root.drop("logging")
	}
}

func (m *migrator) devices(root *value) {
	v := root.at("algorithm_device_requests")
	if v == nil {
		return
	}
	gpu := v.at("gpu")
	if v.kind != mapping || len(v.fields) > 1 || gpu == nil {
		if empty(v) {
			m.without(root, "", "algorithm_device_requests", "it asks for nothing")
		}
		return // the decoder says what is wrong
	}
	want := slices.Contains([]string{"true", "yes", "on"}, strings.ToLower(gpu.text))
	root.drop("algorithm_device_requests")
	if !want {
		m.did(gpu.line, "algorithm_device_requests.gpu", NoEffect, "", "it asks for nothing")
		return
	}
	l := root.at("limits")
	if l == nil {
		l = &value{kind: mapping, line: gpu.line}
		root.set("limits", l)
	}
	if l.at("devices") == nil {
		l.set("devices", words("nvidia.com/gpu=all"))
	}
	m.did(gpu.line, "algorithm_device_requests.gpu", Replaced, "limits.devices", "the machine must know its GPUs by CDI names: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")
}

// containers cannot know the ports of Docker's containers.
func (m *migrator) containers(root *value) {
	v := root.at("docker_services")
	if v == nil {
		return
	}
	line := root.lineOf("docker_services")
	root.drop("docker_services")
	if empty(v) {
		m.did(line, "docker_services", NoEffect, "", "it names no container")
		return
	}
	m.did(line, "docker_services", NoEffect, "services", "publish the port of each container on this machine and complete services at the end of the new file")
	m.tail += "\n# Containers that docker_services named. Publish a port of each on this machine's\n# 127.0.0.1, write it in, and move the lines under services:\n"
	for _, f := range v.fields {
		name, err := hostport.Name(f.key)
		if err != nil {
			name = "NAME"
		}
		m.tail += fmt.Sprintf("#   %s: 127.0.0.1:PORT\n", name)
	}
}

// path completes a path that starts at the old file's directory.
func (m *migrator) path(v *value, key string) {
	if v == nil || v.kind != scalar || v.text == "" || m.from == m.to {
		return
	}
	from := decoder{dir: m.from}
	whole, err := from.absolute(v.text)
	if err != nil || whole == filepath.Clean(v.text) {
		return // the decoder says what is wrong
	}
	v.text = whole
	m.did(v.line, key, Changed, key, "the whole path, for the new file is elsewhere")
}

// paths completes a path or a list of paths.
func (m *migrator) paths(v *value, key string) {
	if v == nil {
		return
	}
	m.path(v, key)
	for i, item := range v.items {
		m.path(item, fmt.Sprintf("%s[%d]", key, i))
	}
}

// kept notes every key that nothing was said of.
func (m *migrator) kept(root *value) {
	under := func(key string) bool {
		return slices.ContainsFunc(m.changes, func(c Migration) bool {
			return c.Key == key || c.To == key || strings.HasPrefix(c.Key, key+".") || strings.HasPrefix(c.Key, key+"[")
		})
	}
	note := func(f field, key string) {
		if f.line == 0 || under(key) {
			return
		}
		more := ""
		if key == "policies.allowed_algorithms" {
			more = wholeNames
		}
		m.did(f.line, key, Kept, "", "%s", more)
	}
	for _, f := range root.fields {
		switch {
		case f.val.kind == mapping && f.key != "algorithm_env" && f.key != "services":
			for _, inner := range f.val.fields {
				note(inner, f.key+"."+inner.key)
			}
		case f.key == "databases" || f.key == "ssh-tunnels":
			for i, item := range f.val.items {
				path := fmt.Sprintf("%s[%d]", f.key, i)
				if !under(path) {
					m.did(item.line, path, Kept, "", "")
				}
			}
		default:
			note(f, f.key)
		}
	}
}
