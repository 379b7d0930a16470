package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/v6node/v6node/node/metrics"
)

// Defaults that the reference node does not have.
const (
	defaultAPIPath      = "/api"
	defaultProxyPort    = 8080
	defaultPollInterval = 30 * time.Second
	defaultStopGrace    = 10 * time.Second
)

// Parse reads a configuration. name is the path of the file: it names the node, starts relative paths, and
// stands in messages. Parse opens no file, so with api_key_file the APIKey is empty; Load fills it in. The error
// is Problems and wraps ErrInvalid; the warnings are complete only without an error.
func Parse(name string, data []byte) (*Config, []Warning, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the place of %s cannot be found: %w", ErrInvalid, name, err)
	}
	c, d := parse(name, abs, data)
	if err := d.verdict(); err != nil {
		return nil, d.warnings, err
	}
	return c, d.warnings, nil
}

// verdict is what is wrong, in the order of the lines; nil for nothing.
func (d *decoder) verdict() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
	return d.problems
}

func parse(name, abs string, data []byte) (*Config, *decoder) {
	doc, problems := readDocument(name, data)
	if problems == nil {
		problems = noConfiguration(name, doc)
	}
	if problems != nil {
		return nil, &decoder{file: name, problems: problems}
	}
	return decode(name, abs, doc)
}

// noConfiguration is what is wrong with a file of another kind. It does not show what is in it: that of an API
// key is one text.
func noConfiguration(file string, doc *value) Problems {
	if doc.kind == null || doc.kind == mapping {
		return nil
	}
	what := "a text"
	if doc.kind == list {
		what = "a list"
	}
	return Problems{{File: file, Line: doc.line, Message: "the file must have keys and values such as server_url: https://..., and is " + what + "; name the node's configuration"}}
}

// decode reads what a file says. abs is where the file is, or is to be.
func decode(name, abs string, doc *value) (*Config, *decoder) {
	d := &decoder{file: name, dir: filepath.Dir(abs), given: map[string]int{}}
	c := &Config{
		Name:         nodeName(abs),
		ShareConfig:  true,
		LogFormat:    LogAuto,
		Prometheus:   Prometheus{Interval: 45 * time.Second},
		Proxy:        Proxy{Port: defaultProxyPort},
		PollInterval: defaultPollInterval,
		Runtime:      Runtime{UserNS: UserNSAuto},
		StopGrace:    defaultStopGrace,
	}
	c.ShareAlgorithmLogs = true
	s := d.top(doc)
	d.server(s, c)
	d.apiKey(s, c)
	d.directories(s, c)
	d.databases(s, c)
	d.encryption(s, c)
	d.policies(s, c)
	d.connections(s, c)
	d.registries(s, c)
	d.registryAccess(s, c)
	c.AlgorithmEnv = s.env("algorithm_env", checkAlgorithmVariable)
	s.yesNo("share_config", &c.ShareConfig)
	s.yesNo("share_algorithm_logs", &c.ShareAlgorithmLogs)
	s.yesNo("run_context_file", &c.RunContextFile)
	d.logging(s, c)
	d.prometheus(s, c)
	d.metrics(s, c)
	d.runtime(s, c)
	d.limits(s, c)
	d.limitPolicies(c)
	d.sif(s, c)
	d.gc(s, c)
	port := int64(c.Proxy.Port)
	s.integer("proxy_port", &port, 1, 65535)
	c.Proxy.Port = int(port)
	s.duration("poll_interval", &c.PollInterval, time.Second, time.Hour)
	s.duration("stop_grace", &c.StopGrace, 0, time.Hour)
	d.elsewhere(s)
	s.done()
	d.reportUnknown()
	return c, d
}

var unfitForName = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// nodeName is the file's name without extension, fit for directory and cgroup names.
func nodeName(abs string) string {
	n := strings.TrimSuffix(filepath.Base(abs), filepath.Ext(abs))
	n = strings.Trim(unfitForName.ReplaceAllString(n, "-"), "-.")
	if n == "" {
		return "node"
	}
	return n[:min(len(n), 64)]
}

// top finds the section that holds the settings: the whole file, or what is under application: in files of
// vantage6 3 and before.
func (d *decoder) top(doc *value) *section {
	outer := d.section(doc, "")
	app := slices.IndexFunc(outer.fields, func(f field) bool { return f.key == "application" })
	if app < 0 {
		for _, f := range outer.fields {
			if f.key == "environments" {
				outer.get(f.key)
				d.fail(f.line, f.key, "environments: this is a file of vantage6 3 without a section application; write the settings of one environment into a file of its own with v6node config migrate")
			}
		}
		return outer
	}
	inner := d.section(outer.fields[app].val, "application")
	inner.path, inner.pattern = "", ""
	for i, f := range outer.fields {
		switch {
		case i == app:
		case f.key == "environments":
			d.warn(f.line, f.key, "environments: only the section application is used; remove environments")
		default:
			d.fail(f.line, f.key, "%q stands beside the section application; move it into that section, or all of the section one level up", clip(f.key))
		}
	}
	return inner
}

func (d *decoder) server(s *section, c *Config) {
	c.Server.APIPath = defaultAPIPath
	port := int64(0)
	s.integer("port", &port, 1, 65535)
	if path := ""; s.text("api_path", &path) {
		c.Server.APIPath = strings.TrimRight("/"+strings.Trim(path, "/"), "/")
		if strings.ContainsAny(path, "?#%\\ ") || strings.Contains(path, "//") || strings.Contains(path, "..") {
			v, _ := s.get("api_path")
			d.fail(v.line, s.child("api_path"), "api_path: %q is not a path such as /api", clip(path))
		}
	}
	s.file("ca_file", &c.Server.CAFile)

	v, line := s.get("server_url")
	if v == nil {
		d.fail(s.line, "server_url", "server_url is missing; write the address of the vantage6 server, such as https://v6.example.org")
		return
	}
	text := ""
	if !s.text("server_url", &text) {
		return
	}
	u, err := url.Parse(strings.TrimRight(text, "/"))
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "":
		d.fail(line, "server_url", "server_url must be an address such as https://v6.example.org")
		return
	case u.User != nil:
		d.fail(line, "server_url", "server_url contains a user name or password; the node logs in with api_key only")
		return
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "":
		d.fail(line, "server_url", "server_url must end with the host; write the rest, %q, as api_path", clip(u.RequestURI()))
		return
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseInt(p, 10, 32)
		switch {
		case err != nil || n < 1 || n > 65535:
			d.fail(line, "server_url", "server_url: %q is not a port", clip(p))
			return
		case port != 0 && port != n:
			d.fail(line, "server_url", "server_url says port %d and port says %d; keep one", n, port)
			return
		}
		port = n
	}
	if port == 0 {
		port = map[string]int64{"http": 80, "https": 443}[u.Scheme]
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); u.Scheme == "http" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		d.warn(line, "server_url", "server_url: http sends the API key and everything else unprotected over the network; use https")
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	c.Server.URL, c.Server.Port = u.Scheme+"://"+host, int(port)
}

func (d *decoder) apiKey(s *section, c *Config) {
	inFile := s.secret("api_key", &c.APIKey)
	v, line := s.get("api_key")
	elsewhere := s.file("api_key_file", &c.APIKeyFile)
	switch {
	case inFile && elsewhere:
		d.fail(line, "api_key", "api_key and api_key_file are both given; keep one")
	case inFile && strings.Contains(c.APIKey.Reveal(), "${"):
		d.fail(line, "api_key", "api_key contains a variable, which is not expanded; write the key, or use api_key_file")
	case inFile && strings.ContainsFunc(c.APIKey.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }):
		d.fail(line, "api_key", "api_key contains spaces or unusual characters; copy it again from the server")
	case !inFile && !elsewhere && (v == nil || v.kind == scalar) && !s.has("api_key_file"):
		d.fail(s.line, "api_key", "api_key is missing; write the key that the server gave for this node, or name its file as api_key_file")
	}
}

func (d *decoder) directories(s *section, c *Config) {
	if !s.file("state_dir", &c.StateDir) {
		c.StateDir = filepath.Join(stateHome(), "v6node", c.Name)
	}
	if v, line := s.get("task_dir"); v != nil && v.kind == scalar && isWindowsPath(v.text) {
		d.warn(line, "task_dir", "task_dir: %q is a Windows path and is not used; tasks are in %s", clip(v.text), filepath.Join(c.StateDir, "work"))
		return
	}
	s.file("task_dir", &c.TaskDir)
}

// stateHome is where programs keep state: of the system for root, else of the user.
func stateHome() string {
	if os.Geteuid() == 0 {
		return "/var/lib"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	if home, err := os.UserHomeDir(); err == nil && filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state")
	}
	return "/var/lib"
}

func (d *decoder) encryption(s *section, c *Config) {
	v, line := s.get("encryption")
	e := d.section(v, "encryption")
	defer e.done()
	e.yesNo("enabled", &c.Encryption.Enabled)
	if e.has("passphrase_file") && c.Encryption.Enabled {
		e.file("passphrase_file", &c.Encryption.PassphraseFile)
	}
	if key, _ := e.get("private_key"); !c.Encryption.Enabled && key != nil && key.kind == scalar {
		// Templates leave a placeholder there; it is checked once it matters.
		return
	}
	if !e.file("private_key", &c.Encryption.PrivateKey) && c.Encryption.Enabled {
		if key, _ := e.get("private_key"); key == nil || key.text == "" {
			d.fail(line, "encryption.private_key", "encryption.private_key is missing; name the file with the organization's private key, or set encryption.enabled to false if the collaboration is not encrypted")
		}
	}
}

// ours are the variables that the node itself sets for every run.
var ours = []string{
	"INPUT_FILE", "OUTPUT_FILE", "TOKEN_FILE", "TEMPORARY_FOLDER", "HOST", "PORT", "API_PATH",
	"USER_REQUESTED_DATABASE_LABELS", "DB_LABELS", "RUN_CONTEXT_FILE",
}

func checkAlgorithmVariable(name string) error {
	switch {
	case name == "PKG_NAME":
		return fmt.Errorf("the image sets this variable and it may not be replaced; choose another name")
	case slices.Contains(ours, name), strings.HasSuffix(name, "_DATABASE_URI"), strings.HasSuffix(name, "_DATABASE_TYPE"):
		return fmt.Errorf("the node sets this variable itself; choose another name")
	}
	return nil
}

func (d *decoder) registries(s *section, c *Config) {
	v, _ := s.get("docker_registries")
	if v == nil {
		d.registry(nil, "docker_registries[0]")
		return
	}
	if v.kind != list {
		s.wrong(v, "docker_registries", "a list of logins (registry, username, password)")
		return
	}
	for i, item := range v.items {
		r, ok := d.registry(item, fmt.Sprintf("docker_registries[%d]", i))
		if !ok {
			continue
		}
		if slices.ContainsFunc(c.Registries, func(o Registry) bool { return o.Registry == r.Registry }) {
			d.fail(item.line, "docker_registries", "docker_registries: there are two logins for %s; keep one", r.Registry)
			continue
		}
		c.Registries = append(c.Registries, r)
	}
}

func (d *decoder) registry(v *value, path string) (Registry, bool) {
	r := d.section(v, path)
	defer r.done()
	var out Registry
	text := ""
	haveName := r.text("registry", &text)
	haveUser := r.literal("username", &out.Username)
	havePassword := r.secret("password", &out.Password)
	if v == nil || v.kind != mapping {
		return out, false
	}
	for _, k := range []struct {
		name string
		have bool
	}{{"registry", r.has("registry")}, {"username", haveUser && out.Username != ""}, {"password", havePassword}} {
		if !k.have {
			d.fail(v.line, r.child(k.name), "%s is missing or empty; a login has registry, username and password", r.child(k.name))
		}
	}
	if !haveName || out.Username == "" || !havePassword {
		return out, false
	}
	name, err := registryName(text)
	if err != nil {
		at, _ := r.get("registry")
		d.fail(at.line, r.child("registry"), "%s: %v", r.child("registry"), err)
		return out, false
	}
	out.Registry = name
	return out, true
}

var registryPattern = regexp.MustCompile(`\A([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?(/[a-z0-9._-]+)*\z`)

// registryName reads the ways in which people write a registry, https://index.docker.io/v1/ among them.
func registryName(text string) (string, error) {
	name := text
	for _, scheme := range []string{"https://", "http://"} {
		name = strings.TrimPrefix(name, scheme)
	}
	name = strings.TrimRight(name, "/")
	for _, api := range []string{"/v1", "/v2"} {
		name = strings.TrimSuffix(name, api)
	}
	host, path, _ := strings.Cut(name, "/")
	host = strings.ToLower(host)
	if host == "index.docker.io" || host == "registry-1.docker.io" || host == "registry.hub.docker.com" {
		host = "docker.io"
	}
	if name = host; path != "" {
		name += "/" + path
	}
	if !registryPattern.MatchString(name) {
		return "", fmt.Errorf("%q is not a registry; write its host, such as registry.example.org", clip(text))
	}
	return name, nil
}

// Keys of Python's logging that mean nothing here, besides use_console and loggers.
var (
	unusedTexts   = []string{"file", "datefmt"}
	unusedNumbers = []string{"backup_count", "max_size"}
)

// pythonFormat tells whether a format is one of Python's logging.
func pythonFormat(v *value) bool {
	return v.kind == scalar && (strings.Contains(v.text, "%(") || strings.Contains(v.text, "{"))
}

func (d *decoder) logging(s *section, c *Config) {
	v, line := s.get("logging")
	l := d.section(v, "logging")
	defer l.done()
	level := "INFO"
	l.oneOf("level", &level, "CRITICAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "NOTSET")
	c.LogLevel = map[string]slog.Level{
		"CRITICAL": slog.LevelError + 4, "ERROR": slog.LevelError, "WARNING": slog.LevelWarn, "WARN": slog.LevelWarn,
		"INFO": slog.LevelInfo, "DEBUG": slog.LevelDebug, "NOTSET": slog.LevelDebug,
	}[level]
	var unused []string
	format := ""
	if f, _ := l.get("format"); f != nil && pythonFormat(f) {
		unused = append(unused, "format")
	} else if l.oneOf("format", &format, LogFormats...) {
		c.LogFormat = LogFormat(format)
	}
	console := true
	if l.yesNo("use_console", &console); !console {
		unused = append(unused, "use_console")
	}
	for _, key := range unusedTexts {
		if text := ""; l.text(key, &text) {
			unused = append(unused, key)
		}
	}
	for _, key := range unusedNumbers {
		if n := int64(0); l.integer(key, &n, 0, 1<<40) {
			unused = append(unused, key)
		}
	}
	if l.has("loggers") {
		unused = append(unused, "loggers")
	}
	if len(unused) > 0 {
		d.warn(line, "logging", "logging: %s not used; the node writes one log to standard error, where systemd's journal keeps, dates and rotates it (logging.format: json for machines)", are(unused))
	}
}

// are lists words with their verb.
func are(words []string) string {
	if len(words) == 1 {
		return words[0] + " is"
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1] + " are"
}

func (d *decoder) prometheus(s *section, c *Config) {
	v, _ := s.get("prometheus")
	p := d.section(v, "prometheus")
	defer p.done()
	p.yesNo("enabled", &c.Prometheus.Enabled)
	seconds := int64(c.Prometheus.Interval / time.Second)
	p.integer("report_interval_seconds", &seconds, 1, 86400)
	c.Prometheus.Interval = time.Duration(seconds) * time.Second
}

func (d *decoder) metrics(s *section, c *Config) {
	v, _ := s.get("metrics")
	m := d.section(v, "metrics")
	defer m.done()
	text := ""
	if !m.text("listen", &text) || text == "" {
		return
	}
	at, _ := m.get("listen")
	address, err := metrics.ParseAddress(text)
	if err != nil {
		d.fail(at.line, "metrics.listen", "metrics.listen: %v", err)
		return
	}
	c.Metrics = address
}

func (d *decoder) runtime(s *section, c *Config) {
	v, _ := s.get("runtime")
	r := d.section(v, "runtime")
	defer r.done()
	r.text("handler", &c.Runtime.Handler)
	r.oneOf("userns", &c.Runtime.UserNS, UserNSModes...)
	text := ""
	if !r.text("endpoint", &text) || text == "" {
		return
	}
	at, _ := r.get("endpoint")
	if path, ok := strings.CutPrefix(text, "unix://"); !ok || !filepath.IsAbs(path) {
		d.fail(at.line, "runtime.endpoint", "runtime.endpoint: %q is not a unix socket; write unix:// and the whole path, such as unix:///run/containerd/containerd.sock", clip(text))
		return
	}
	c.Runtime.Endpoint = text
}
