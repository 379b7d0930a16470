// Package setup makes the configuration of a new node from an administrator's
// answers. It asks nobody and writes nothing: questions are the command's, and
// what an answer must be is node/config's word.
package setup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"github.com/v6node/v6node/node/config"
)

// Answers are what a node cannot be set up without, and what its administrator
// should not leave to a default.
type Answers struct {
	ServerURL string // https://v6.example.org, also with a port
	APIPath   string // "/api"
	CAFile    string // "" for the system's certificates
	APIKey    config.Secret
	// APIKeyFile is where the key is read from at each start; "" puts it into the file.
	APIKeyFile string
	// PrivateKey of the organization; "" is a collaboration without encryption.
	PrivateKey     string
	PassphraseFile string
	Databases      []Database
	Algorithms     []string // empty allows all
	Endpoint       string   // of the container runtime; "" is a containerd of the node's own
}

// Database is a file or folder of this machine, or the address of a service.
type Database struct{ Label, URI, Type string }

// ErrType says that the type of a database must be told.
var ErrType = errors.New("its type cannot be told from its name")

// ParseDatabase reads LABEL=URI or LABEL=TYPE:URI. Without a type that of the
// file's name or of a directory is taken, else the error wraps ErrType. A relative
// path is completed from the working directory.
func ParseDatabase(text string) (Database, error) {
	label, uri, ok := strings.Cut(text, "=")
	if !ok || label == "" || uri == "" {
		return Database{}, fmt.Errorf("%q is not a database; write LABEL=PATH or LABEL=TYPE:ADDRESS, such as default=/data/patients.csv", label)
	}
	d := Database{Label: label, URI: uri}
	if kind, rest, ok := strings.Cut(uri, ":"); ok && slices.Contains(config.DatabaseTypes(), kind) {
		d.Type, d.URI = kind, rest
	}
	if d.Type == "" {
		d.Type = TypeOf(d.URI)
	}
	if d.Type == "" {
		return d, fmt.Errorf("the database %s: %w; write it as %[1]s=TYPE:..., with one of %s", label, ErrType, strings.Join(config.DatabaseTypes(), ", "))
	}
	return d, nil
}

// TypeOf is the type that a path tells, or "".
func TypeOf(uri string) string {
	if info, err := os.Stat(uri); err == nil && info.IsDir() {
		return "folder"
	}
	if strings.Contains(uri, "://") {
		return ""
	}
	return config.GuessType(uri)
}

// Secret tells whether the address may have a password in it.
func (d Database) Secret() bool {
	lower := strings.ToLower(d.URI)
	service := strings.Contains(lower, "://") || strings.HasPrefix(lower, "jdbc:") || strings.Contains(lower, "host=")
	return service && (strings.Contains(lower, "@") || strings.Contains(lower, "password") || strings.Contains(lower, "pwd="))
}

// absolute completes the path of a file or folder.
func (d Database) absolute() (Database, error) {
	services := []string{"sql", "sparql", "omop", "other"}
	if slices.Contains(services, d.Type) && !strings.HasPrefix(d.URI, "./") && !strings.HasPrefix(d.URI, "../") || d.URI == "" {
		return d, nil
	}
	var err error
	d.URI, err = filepath.Abs(d.URI)
	return d, err
}

// Text is the configuration, with comments for those who go on in it. It holds
// the API key unless that has a file of its own.
func (a Answers) Text() ([]byte, error) {
	for _, p := range []*string{&a.CAFile, &a.APIKeyFile, &a.PrivateKey, &a.PassphraseFile} {
		if *p == "" {
			continue
		}
		whole, err := filepath.Abs(*p)
		if err != nil {
			return nil, err
		}
		*p = whole
	}
	dbs := make([]Database, len(a.Databases))
	for i, d := range a.Databases {
		whole, err := d.absolute()
		if err != nil {
			return nil, err
		}
		dbs[i] = whole
	}
	a.Databases = dbs
	var b bytes.Buffer
	err := page.Execute(&b, a)
	return b.Bytes(), err
}

// Config reads the configuration as if it were at path, with the API key.
func (a Answers) Config(path string) (*config.Config, []config.Warning, error) {
	text, err := a.Text()
	if err != nil {
		return nil, nil, err
	}
	c, warnings, err := config.Parse(path, text)
	if err == nil {
		c.APIKey = a.APIKey
	}
	return c, warnings, err
}

// Check says what is wrong with the answers that belong to the keys; others may
// still be missing.
func (a Answers) Check(keys ...string) error {
	if a.APIKey.IsZero() && a.APIKeyFile == "" {
		a.APIKey = config.NewSecret("not-yet")
	}
	if a.ServerURL == "" {
		a.ServerURL = "https://localhost"
	}
	_, _, err := a.Config("/node.yaml")
	var problems config.Problems
	if !errors.As(err, &problems) {
		return err
	}
	for _, p := range problems {
		if slices.ContainsFunc(keys, func(k string) bool {
			return p.Key == k || p.Key == "" || strings.HasPrefix(p.Key, k+"[") || strings.HasPrefix(p.Key, k+".")
		}) {
			return errors.New(p.Message)
		}
	}
	return nil
}

// quote writes a text so that YAML reads the same text.
func quote(s string) (string, error) {
	b, err := yaml.Marshal(&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: s})
	return strings.TrimSpace(string(b)), err
}

var page = template.Must(template.New("node.yaml").Funcs(template.FuncMap{"quote": quote}).Parse(`# The configuration of a vantage6 node, made by v6node init.
# docs/configuration.md has every key; v6node config show has what holds.

# The vantage6 server, and the key that it gave for this node.
server_url: {{quote .ServerURL}}
api_path: {{quote .APIPath}}
{{- if .CAFile}}
ca_file: {{quote .CAFile}}
{{- end}}
{{- if .APIKeyFile}}
api_key_file: {{quote .APIKeyFile}}
{{- else}}
api_key: {{quote .APIKey.Reveal}}
{{- end}}

# As the collaboration at the server.
encryption:
{{- if .PrivateKey}}
  enabled: true
  private_key: {{quote .PrivateKey}}
{{- if .PassphraseFile}}
  passphrase_file: {{quote .PassphraseFile}}
{{- end}}
{{- else}}
  enabled: false
{{- end}}

# What algorithms may read, each by its label. It is mounted read-only.
{{- if .Databases}}
databases:
{{- range .Databases}}
  - label: {{quote .Label}}
    type: {{quote .Type}}
    uri: {{quote .URI}}
{{- if eq .Type "folder"}}
    mount_mode: ro
{{- end}}
{{- end}}
{{- else}}
databases: []
#  - label: default
#    type: csv
#    uri: /data/patients.csv
{{- end}}

# Which images may run: names, with a tag or a digest, or regular expressions that
# match the whole name. Without allowed_algorithms every image may.
policies:
{{- if .Algorithms}}
  allowed_algorithms:
{{- range .Algorithms}}
    - {{quote .}}
{{- end}}
{{- else}}
#  allowed_algorithms:
#    - registry.example.org/algorithms/average
{{- end}}
  # Ids of the organizations that may send tasks; without it all of the collaboration.
#  allowed_organizations: [1, 2]
{{if .Endpoint}}
# The container runtime of this machine.
runtime:
  endpoint: {{quote .Endpoint}}
{{else}}
# Without it the node starts a containerd of its own.
#runtime:
#  endpoint: unix:///run/containerd/containerd.sock
{{end}}
# For each run; without limits all may use the whole machine.
#limits:
#  memory: 4g
#  cpus: 2
#  timeout: 12h
`))
