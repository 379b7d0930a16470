package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/v6node/v6node/internal/units"
	"github.com/v6node/v6node/node/admission"
	"github.com/v6node/v6node/node/collect"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/policy"
	"github.com/v6node/v6node/node/reach"
)

// Effective is a configuration in the form of its file: every key with the value that holds, defaults filled in. A
// key without a value, or whose value depends on the machine, is empty. Secrets show as ***.
type Effective struct {
	Config   *Config
	Warnings []Warning
	file     string
	root     *value
	given    map[string]int
}

// LoadEffective is Load that remembers where each value comes from.
func LoadEffective(path string) (*Effective, error) {
	c, d, warnings, err := load(path)
	if err != nil {
		return nil, err
	}
	return &Effective{Config: c, Warnings: warnings, file: path, root: c.document(mask), given: d.given}, nil
}

// Source says where a value comes from.
type Source struct {
	From string `json:"from"`           // FromFile or FromDefault
	Line int    `json:"line,omitempty"` // in the file
}

// Where values come from.
const (
	FromFile    = "file"
	FromDefault = "default"
)

func (s Source) String() string {
	if s.From == FromFile {
		return "line " + strconv.Itoa(s.Line)
	}
	return s.From
}

func (e *Effective) source(key string) Source {
	if line, ok := e.given[key]; ok {
		return Source{FromFile, line}
	}
	return Source{From: FromDefault}
}

// Sources has every key that has a value of its own, by its full name: "databases[0].uri".
func (e *Effective) Sources() map[string]Source {
	out := map[string]Source{}
	e.root.leaves("", func(key string, _ *value) { out[key] = e.source(key) })
	return out
}

// YAML is the configuration as a file, with a comment behind each value that says where it comes from.
func (e *Effective) YAML() ([]byte, error) {
	e.root.leaves("", func(key string, v *value) { v.comment = "# " + e.source(key).String() })
	return e.root.yaml(fmt.Sprintf("# What holds for node %s by %s.", e.Config.Name, e.file))
}

// MarshalJSON has the configuration in the form of its file, and the sources by key.
func (e *Effective) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		File          string            `json:"file"`
		Name          string            `json:"name"`
		Configuration any               `json:"configuration"`
		Sources       map[string]Source `json:"sources"`
	}{e.file, e.Config.Name, e.root.plainValue(), e.Sources()})
}

// leaves visits every value that a file gives as a whole: all but the sections, and lists of sections.
func (v *value) leaves(path string, visit func(key string, v *value)) {
	switch {
	case v.kind == mapping && !v.names:
		for _, f := range v.fields {
			key := f.key
			if path != "" {
				key = path + "." + f.key
			}
			f.val.leaves(key, visit)
		}
	case v.kind == list && slices.ContainsFunc(v.items, func(i *value) bool { return i.kind == mapping }):
		for i, item := range v.items {
			item.leaves(fmt.Sprintf("%s[%d]", path, i), visit)
		}
	default:
		visit(path, v)
	}
}

// showing says how secrets are written.
type showing bool

const (
	mask  showing = true
	plain showing = false
)

func (s showing) secret(text string) *value {
	if s == mask && text != "" {
		text = hidden
	}
	return orNone(text)
}

func (s showing) env(e Env) *value {
	if e == nil {
		return none()
	}
	v := &value{kind: mapping, names: true}
	if s == mask {
		e = e.masked()
	}
	for _, name := range slices.Sorted(maps.Keys(e)) {
		v.fields = append(v.fields, field{key: name, val: quoted(e[name])})
	}
	return v
}

// Values of a document.
func none() *value { return &value{kind: null} }

func scalarOf(tag, text string) *value {
	return &value{kind: scalar, tag: tag, plain: true, text: text}
}

func words(s string) *value { return scalarOf("!!str", s) }

func quoted(s string) *value { return &value{kind: scalar, tag: "!!str", text: s} }

func orNone(s string) *value {
	if s == "" {
		return none()
	}
	return words(s)
}

func number(n int64) *value { return scalarOf("!!int", strconv.FormatInt(n, 10)) }

func yes(b bool) *value { return scalarOf("!!bool", strconv.FormatBool(b)) }

func sized(n int64) *value { return literal(units.Size(n)) }

func lasting(d time.Duration) *value { return literal(units.Duration(d)) }

// literal is a word that may be a number.
func literal(s string) *value {
	if _, err := strconv.ParseInt(s, 10, 64); err == nil {
		return scalarOf("!!int", s)
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return scalarOf("!!float", s)
	}
	return words(s)
}

func listOf[T any](items []T, each func(T) *value) *value {
	v := &value{kind: list}
	for _, i := range items {
		v.items = append(v.items, each(i))
	}
	return v
}

// object is a section of keys and values by turns.
func object(pairs ...any) *value {
	v := &value{kind: mapping}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.fields = append(v.fields, field{key: pairs[i].(string), val: pairs[i+1].(*value)})
	}
	return v
}

// unset is empty where zero stands for a value that is found elsewhere.
func unset[T int64 | time.Duration](n T, write func(T) *value) *value {
	if n == 0 {
		return none()
	}
	return write(n)
}

// document writes the configuration as decode reads it.
func (c *Config) document(show showing) *value {
	key := show.secret(c.APIKey.Reveal())
	if c.APIKeyFile != "" {
		key = none()
	}
	return object(
		"server_url", words(c.Server.URL), "port", number(int64(c.Server.Port)), "api_path", words(c.Server.APIPath), "ca_file", orNone(c.Server.CAFile),
		"api_key", key, "api_key_file", orNone(c.APIKeyFile), "poll_interval", lasting(c.PollInterval),
		"state_dir", words(c.StateDir), "task_dir", orNone(c.TaskDir),
		"databases", listOf(c.Databases, func(d Database) *value { return d.document(show) }),
		"whitelist", c.Whitelist.document(), "services", services(c.Services), "ssh-tunnels", listOf(c.Tunnels, Tunnel.document),
		"encryption", object("enabled", yes(c.Encryption.Enabled), "private_key", orNone(c.Encryption.PrivateKey), "passphrase_file", orNone(c.Encryption.PassphraseFile)),
		"policies", c.policyDocument(),
		"algorithm_env", show.env(c.AlgorithmEnv), "run_context_file", yes(c.RunContextFile),
		"docker_registries", listOf(c.Registries, func(r Registry) *value {
			return object("registry", words(r.Registry), "username", quoted(r.Username), "password", show.secret(r.Password.Reveal()))
		}),
		"registries", object("auth_files", listOf(c.RegistryAccess.AuthFiles, words), "host_logins", yes(c.RegistryAccess.HostFiles), "certs_dirs", listOf(c.RegistryAccess.CertsDirs, words)),
		"proxy_port", number(int64(c.Proxy.Port)), "stop_grace", lasting(c.StopGrace),
		"share_config", yes(c.ShareConfig), "share_algorithm_logs", yes(c.ShareAlgorithmLogs),
		"sif", object("directories", listOf(c.SIF.Directories, words), "require_signature", yes(c.SIF.RequireSignature), "keys", listOf(c.SIF.Keys, words),
			"cache_size", sized(c.SIF.CacheSize), "max_image_size", sized(c.SIF.MaxImageSize), "registry_port", number(int64(c.SIF.RegistryPort))),
		"gc", c.GC.document(),
		"runtime", object("endpoint", orNone(c.Runtime.Endpoint), "handler", orNone(c.Runtime.Handler), "userns", words(c.Runtime.UserNS)),
		"limits", limitDocument(c.Limits, func(string) bool { return true }), "limit_rules", c.limitRuleDocument(),
		"resources", c.resources(),
		"logging", object("level", words(levelName(c.LogLevel)), "format", words(string(c.LogFormat))),
		"prometheus", object("enabled", yes(c.Prometheus.Enabled), "report_interval_seconds", number(int64(c.Prometheus.Interval/time.Second))),
		"metrics", object("listen", orNone(c.Metrics.String())),
	)
}

func levelName(l slog.Level) string {
	switch {
	case l <= slog.LevelDebug:
		return "DEBUG"
	case l <= slog.LevelInfo:
		return "INFO"
	case l <= slog.LevelWarn:
		return "WARNING"
	case l <= slog.LevelError:
		return "ERROR"
	}
	return "CRITICAL"
}

func (d Database) document(show showing) *value {
	uri, mode, limit := d.URI, none(), none()
	if show == mask {
		uri = d.shown().URI
	}
	if d.IsPath() {
		// The word says more than the default.
		if d.Private || d.MountMode != MountCopy {
			mode = words(d.MountMode)
		}
	}
	if d.SizeLimit > 0 {
		limit = sized(d.SizeLimit)
	}
	return object("label", words(d.Label), "uri", words(uri), "type", words(d.Type), "mount_mode", mode, "size_limit", limit, "env", show.env(d.Env))
}

func (w Whitelist) document() *value {
	pairs := listOf(w.Rules.Pairs, words)
	for _, r := range w.Some {
		pairs.items = append(pairs.items, object("to", listOf(r.Pairs, words), "image", orNone(r.Runs.Image), "organization", organization(r.Runs.Organization)))
	}
	return object("domains", listOf(w.Rules.Domains, words), "ips", listOf(w.Rules.IPs, words),
		"ports", listOf(w.Rules.Ports, func(n int) *value { return number(int64(n)) }), "pairs", pairs)
}

// organization keeps an id a number.
func organization(s string) *value {
	if s == "" {
		return none()
	}
	return literal(s)
}

func services(all []reach.Service) *value {
	v := &value{kind: mapping, names: true}
	for _, s := range all {
		target := s.Target.Address
		if s.Target.Kind == reach.Unix {
			target = "unix://" + target
		}
		v.fields = append(v.fields, field{key: s.At.String(), val: words(target)})
	}
	return v
}

func (t Tunnel) document() *value {
	return object("hostname", words(t.At.Host),
		"ssh", object("host", words(t.Server.Host), "port", number(int64(t.Server.Port)), "fingerprint", words(t.HostKey.String()),
			"identity", object("username", quoted(t.User), "key", words(t.KeyFile), "passphrase_file", orNone(t.PassphraseFile))),
		"tunnel", object("bind", object("port", number(int64(t.At.Port))), "dest", object("ip", words(t.Dest.Host), "port", number(int64(t.Dest.Port)))))
}

func (c *Config) policyDocument() *value {
	p := c.Policies
	basics := none()
	if p.AllowBasics != nil {
		basics = yes(*p.AllowBasics)
	}
	out := object(
		"allowed_algorithms", listOrNone(p.AllowedAlgorithms), "allow_basics_algorithm", basics,
		"allowed_users", listOrNone(p.AllowedUsers), "allowed_organizations", listOrNone(p.AllowedOrganizations),
		"require_algorithm_pull", yes(p.RequirePull), "allowed_algorithm_stores", listOrNone(p.AllowedStores),
		"allow_either_whitelist_or_store", yes(p.EitherListOrStore), "signatures", none())
	if len(p.SigningKeys) > 0 {
		out.set("signatures", object("keys", listOf(p.SigningKeys, words)))
	}
	rules := &value{kind: list}
	for i, r := range p.Rules {
		rules.items = append(rules.items, c.ruleDocument(fmt.Sprintf("policies.rules[%d]", i), r))
	}
	out.set("rules", rules)
	return out
}

// listOrNone is empty for a list whose emptiness would be warned of.
func listOrNone(texts []string) *value {
	if len(texts) == 0 {
		return none()
	}
	return listOf(texts, literal)
}

func (c *Config) ruleDocument(path string, r policy.Rule) *value {
	given := func(names *[]string) *value {
		if names == nil {
			return none()
		}
		return listOf(*names, words)
	}
	out := object("image", orNone(r.Image), "organization", organization(r.Organization), "user", unset(r.User, number),
		"databases", given(r.Databases), "functions", given(r.Functions), "approve", orNone(string(r.Approve)))
	if i := slices.IndexFunc(c.LimitRules, func(l limits.Rule) bool { return l.Key == path }); i >= 0 {
		out.set("limits", changeDocument(c.LimitRules[i].Change))
	}
	return out
}

func (c *Config) limitRuleDocument() *value {
	v := &value{kind: list}
	for _, r := range c.LimitRules {
		if r.Key == "" {
			v.items = append(v.items, object("image", orNone(r.Image), "organization", organization(r.Organization), "limits", changeDocument(r.Change)))
		}
	}
	return v
}

func changeDocument(ch limits.Change) *value {
	return limitDocument(ch.Apply(limits.Limits{}), ch.Sets)
}

// limitDocument writes those limits of which want says so.
func limitDocument(l limits.Limits, want func(key string) bool) *value {
	v := object()
	for _, f := range limits.Fields() {
		if !want(f.Key) {
			continue
		}
		texts := f.Texts(l)
		at := none()
		switch {
		case f.Form == limits.List:
			at = listOf(texts, words)
		case f.Form == limits.Text && len(texts) == 1:
			at = orNone(texts[0])
			if l.CpusetCpus+l.CpusetMems != "" && texts[0] != "" {
				at = quoted(texts[0])
			}
		case len(texts) == 1:
			at = literal(texts[0])
		}
		v.fields = append(v.fields, field{key: f.Key, val: at})
	}
	return v
}

func (g GC) document() *value {
	free := none()
	if g.MinFree != collect.DefaultFree {
		free = sized(g.MinFree)
	}
	return object("interval", lasting(g.Interval), "min_free", free,
		"images", object("max_age", lasting(g.Images.MaxAge), "max_size", sized(g.Images.MaxSize), "keep", listOf(g.Images.Keep, func(p collect.Pin) *value { return words(p.String()) })),
		"logs", object("max_age", lasting(g.LogAge), "max_size", sized(g.LogSize)), "scratch", object("max_age", lasting(g.ScratchAge)), "records", object("max_age", lasting(g.RecordAge)))
}

func (c *Config) resources() *value {
	reserve := func(n *int64, write func(int64) *value) *value {
		if n == nil {
			return none()
		}
		return write(*n)
	}
	devices := none()
	if len(c.Budget.Devices) > 0 {
		devices = listOf(slices.Sorted(maps.Keys(c.Budget.Devices)), func(k string) *value { return words(fmt.Sprintf("%s:%d", k, c.Budget.Devices[k])) })
	}
	b, a := c.Budget, c.Admission
	or := func(n, standard int64) int64 {
		if n == 0 {
			return standard
		}
		return n
	}
	return object("enforce", words(c.Enforce), "cgroup", orNone(c.Cgroup),
		"budget", object("memory", unset(b.Memory, sized), "cpus", unset(b.CPUs, number), "pids", unset(b.Pids, number), "runs", unset(b.Runs, number), "devices", devices),
		"reserve", object("memory", reserve(b.Reserve.Memory, sized), "cpus", reserve(b.Reserve.CPUs, number), "pids", reserve(b.Reserve.Pids, number)),
		"subtasks", object("depth", number(or(a.Depth, admission.DefaultDepth)), "memory", sized(a.Memory), "cpus", number(a.CPUs), "pids", number(a.Pids)),
		"queue", object("max_passes", number(or(a.MaxPasses, admission.DefaultMaxPasses)),
			"max_passed_for", lasting(time.Duration(or(int64(a.MaxPassedFor), int64(admission.DefaultMaxPassedFor)))),
			"stall_after", lasting(time.Duration(or(int64(a.StallAfter), int64(admission.DefaultStallAfter))))))
}
