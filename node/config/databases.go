package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/v6node/v6node/node/reach"
)

// databaseTypes are the types that the reference node's tools know. Others reach the algorithm as they are.
var databaseTypes = []string{"csv", "parquet", "excel", "folder", "sql", "sparql", "omop", "other"}

// fileTypes are the types that can only be files or folders of this machine.
var fileTypes = []string{"csv", "parquet", "excel", "folder"}

func (d *decoder) databases(s *section, c *Config) {
	v, line := s.get("databases")
	if v == nil {
		d.database(nil, "databases[0]")
		return
	}
	items := v.items
	switch v.kind {
	case mapping:
		d.warn(line, "databases", "databases: the form label: path is out of date; write a list of label, uri and type")
		items = nil
		for _, f := range v.fields {
			items = append(items, fromPair(f))
		}
	case scalar:
		s.wrong(v, "databases", "a list of databases (label, uri, type)")
		return
	}
	seen := map[string]Database{}
	for i, item := range items {
		path := fmt.Sprintf("databases[%d]", i)
		db, ok := d.database(item, path)
		if !ok {
			continue
		}
		upper := strings.ToUpper(db.Label)
		if other, ok := seen[upper]; ok {
			if other.Label == db.Label {
				d.fail(item.line, path+".label", "%s: the label %q is given twice; labels are unique", path, db.Label)
			} else {
				d.fail(item.line, path+".label", "%s: the labels %q and %q differ only in case, and algorithms see both as %s; rename one", path, other.Label, db.Label, upper)
			}
			continue
		}
		seen[upper] = db
		c.Databases = append(c.Databases, db)
	}
}

// fromPair turns an entry of the old form, label: path, into one of the list.
func fromPair(f field) *value {
	if f.val.kind == mapping {
		v := *f.val
		v.fields = append([]field{{key: "label", line: f.line, val: text(f.key, f.line)}}, v.fields...)
		return &v
	}
	kind := ""
	if f.val.kind == scalar {
		kind = GuessType(f.val.text)
	}
	if kind == "" {
		kind = "other"
	}
	return &value{kind: mapping, line: f.line, fields: []field{
		{key: "label", line: f.line, val: text(f.key, f.line)}, {key: "uri", line: f.line, val: f.val}, {key: "type", line: f.line, val: text(kind, f.line)},
	}}
}

// DatabaseTypes are the types that algorithms' tools know.
func DatabaseTypes() []string { return slices.Clone(databaseTypes) }

// GuessType is the type that the name of a file tells, or "".
func GuessType(path string) string {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv":
		return "csv"
	case ".parquet":
		return "parquet"
	case ".xls", ".xlsx":
		return "excel"
	}
	return ""
}

func text(s string, line int) *value { return &value{kind: scalar, tag: "!!str", text: s, line: line} }

// database reads one entry; nil only makes its keys known.
func (d *decoder) database(v *value, path string) (Database, bool) {
	s := d.section(v, path)
	defer s.done()
	before := len(d.problems)
	var db Database
	label := s.literal("label", &db.Label)
	given := ""
	uri := s.literal("uri", &given)
	kind := s.text("type", &db.Type)
	db.MountMode = MountCopy
	copied := s.oneOf("mount_mode", &db.MountMode, MountCopy, MountReadOnly, MountWritable) && db.MountMode == MountCopy
	s.size("size_limit", &db.SizeLimit, minFolder)
	db.Env = s.env("env", func(string) error { return nil })
	if v == nil || v.kind != mapping {
		return db, false
	}
	for _, k := range []struct {
		name string
		have bool
	}{{"label", label && db.Label != ""}, {"uri", uri && given != ""}, {"type", kind && db.Type != ""}} {
		if !k.have && len(d.problems) == before {
			d.fail(v.line, s.child(k.name), "%s is missing; a database has label, uri and type", s.child(k.name))
		}
	}
	if len(d.problems) > before {
		return db, false
	}
	db.Type = strings.ToLower(db.Type)
	d.checkLabel(s, db)
	d.checkVariables(s, db)
	d.place(s, &db, given, copied)
	d.checkWritable(s, db)
	return db, len(d.problems) == before
}

// minFolder is the least size of a folder that runs may change.
const minFolder = 1 << 20

// checkWritable holds a folder that runs may change to a size, without which one of them could fill the disk.
func (d *decoder) checkWritable(s *section, db Database) {
	_, line := s.get("mount_mode")
	limit, at := s.get("size_limit")
	switch {
	case limit != nil && db.MountMode != MountWritable:
		d.fail(at, s.child("size_limit"), "%s: only a folder with mount_mode: rw has one; remove it", s.child("size_limit"))
	case db.MountMode != MountWritable:
	case db.Type != "folder":
		d.fail(line, s.child("mount_mode"), "%s: only a folder (type: folder) can be writable; for a file, mount_mode: copy gives each run a copy that it may change", s.child("mount_mode"))
	case limit == nil:
		d.fail(line, s.child("size_limit"), "%s is missing; a writable folder needs one, such as 10g", s.child("size_limit"))
	}
}

func (d *decoder) checkLabel(s *section, db Database) {
	at, _ := s.get("label")
	switch {
	case !identifier.MatchString(db.Label) || len(db.Label) > 64:
		d.fail(at.line, s.child("label"), "%s: %q is not an identifier; use letters, digits and _, not starting with a digit, at most 64", s.child("label"), clip(db.Label))
	case (db.Label == "data" || db.Label == "tmp") && (db.Type == "folder" || db.MountMode != MountCopy):
		d.fail(at.line, s.child("label"), "%s: /mnt/%s has another meaning in the container; choose another label", s.child("label"), db.Label)
	}
}

// checkVariables refuses names that become one variable in upper case.
func (d *decoder) checkVariables(s *section, db Database) {
	at, _ := s.get("env")
	seen := map[string]string{}
	if at == nil {
		return
	}
	for _, f := range at.fields {
		upper := strings.ToUpper(f.key)
		if other, ok := seen[upper]; ok {
			d.fail(f.line, s.child("env"), "%s: %q and %q differ only in case, and algorithms see both as %s_DB_PARAM_%s; remove one", s.child("env"), other, f.key, strings.ToUpper(db.Label), upper)
		}
		seen[upper] = f.key
	}
}

// place decides whether the database is a path or a service, and fills in URI.
func (d *decoder) place(s *section, db *Database, given string, copied bool) {
	at, _ := s.get("uri")
	key := s.child("uri")
	if !slices.Contains(databaseTypes, db.Type) {
		hint := ""
		if n := nearest(db.Type, databaseTypes); n != "" {
			hint = fmt.Sprintf("; did you mean %q?", n)
		}
		t, _ := s.get("type")
		d.warn(t.line, s.child("type"), "%s: %q is none of %s and is passed to algorithms as it is%s", s.child("type"), clip(db.Type), strings.Join(databaseTypes, ", "), hint)
	}
	if isWindowsPath(given) {
		d.warn(at.line, key, "%s: %q is a Windows path; this node runs on Linux, so runs that ask for %q will fail: write the path there", key, clip(given), db.Label)
		db.URI = given
		return
	}
	isFile := slices.Contains(fileTypes, db.Type)
	if !isFile && !strings.HasPrefix(given, "/") && !strings.HasPrefix(given, "./") && !strings.HasPrefix(given, "../") {
		db.URI = given
		if db.MountMode != MountCopy {
			m, _ := s.get("mount_mode")
			d.fail(m.line, s.child("mount_mode"), "%s: only files and folders can be mounted; remove it", s.child("mount_mode"))
		}
		d.endpoints(at.line, key, db)
		return
	}
	p, err := d.absolute(given)
	switch {
	case err != nil:
		d.fail(at.line, key, "%s: %v", key, err)
		return
	case p == "/":
		d.fail(at.line, key, "%s: the whole machine is not a database", key)
		return
	case strings.ContainsAny(p, "\n\r"):
		d.fail(at.line, key, "%s must be one line of text", key)
		return
	}
	db.URI = p
	if m, line := s.get("mount_mode"); copied && m != nil && db.Type == "folder" {
		d.warn(line, s.child("mount_mode"), "%s: a folder is not copied; %q is mounted read-only", s.child("mount_mode"), db.Label)
	} else if copied && m != nil {
		db.Private = true
		d.warn(line, s.child("mount_mode"), "%s: each run that asks for %q gets a copy of the file, which takes time and room; without mount_mode it is mounted read-only in the same place", s.child("mount_mode"), db.Label)
	} else if db.Type == "folder" && db.MountMode == MountCopy {
		d.warn(at.line, key, "%s: the folder %q is mounted read-only, not writable as in the reference node; write mount_mode: ro to say so, or rw with a size_limit", key, db.Label)
	}
}

// endpoints finds where a service listens.
func (d *decoder) endpoints(line int, key string, db *Database) {
	if strings.HasPrefix(db.URI, "file:") {
		return // a path after all
	}
	found, err := reach.Endpoints(db.URI)
	if err != nil {
		d.warn(line, key, "%s: runs that ask for %q are given its address, but no connection: %v", key, db.Label, err)
		return
	}
	for _, at := range found {
		if err := reach.Check(at); err != nil {
			d.fail(line, key, "%s: %v", key, err)
			return
		}
	}
	db.Endpoints = found
}
