package config

import (
	"log/slog"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/v6node/v6node/internal/hostport"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/metrics"
	"github.com/v6node/v6node/node/policy"
	"github.com/v6node/v6node/node/reach"
	"github.com/v6node/v6node/proxy/egress"
	"github.com/v6node/v6node/proxy/tunnel"
)

// Config is a valid configuration with every default filled in. All paths in it are absolute. It may be
// printed, logged and marshalled: secrets show as ***.
type Config struct {
	Name     string // the file's name without directory and extension; names this node on its machine
	Server   Server
	APIKey   Secret // from api_key, or read by Load from APIKeyFile
	StateDir string // ledger, containers and images; one node at a time
	TaskDir  string // inputs, outputs and logs of runs; "" when they are in StateDir

	APIKeyFile string // "" when api_key is in the file itself

	Databases  []Database
	Services   []reach.Service // that runs can connect to
	Tunnels    []Tunnel        // through which runs can connect
	Whitelist  Whitelist       // what runs reach through the HTTP proxy
	Encryption Encryption
	Policies   policy.Config
	Registries []Registry
	// RegistryAccess is what there is for registries beside Registries.
	RegistryAccess RegistryAccess
	SIF            SIF

	AlgorithmEnv       Env
	ShareConfig        bool // tell the server about policies and databases
	ShareAlgorithmLogs bool // send what algorithms print to the server
	RunContextFile     bool // write RUN_CONTEXT_FILE for each run

	LogLevel   slog.Level
	LogFormat  LogFormat
	Prometheus Prometheus
	Metrics    metrics.Address // where this machine's Prometheus asks; zero for nowhere

	Runtime      Runtime
	Proxy        Proxy
	GC           GC
	Limits       Limits        // of every run
	LimitRules   []limits.Rule // changes for some runs, in the order of the file
	Enforce      string        // EnforceStrict or EnforceBestEffort
	Budget       Budget        // for all runs together
	Admission    Admission     // which of them starts when
	Cgroup       string        // the control group above those of the runs; "" is the top, or without root the node's own
	PollInterval time.Duration // between two looks at the server's list of open runs
	StopGrace    time.Duration // between SIGTERM and SIGKILL for an algorithm that is stopped
}

// Server is where the vantage6 server is.
type Server struct {
	URL     string // scheme and host only: "https://v6.example.org"
	Port    int
	APIPath string // "" or "/api": a leading slash, none at the end
	CAFile  string // PEM certificates trusted besides those of the system; "" for none
}

// Base is the address of the REST API, port and api path included.
func (s Server) Base() *url.URL {
	u, err := url.Parse(s.URL)
	if err != nil { // not after Parse
		return &url.URL{}
	}
	return &url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(u.Hostname(), strconv.Itoa(s.Port)), Path: s.APIPath}
}

// Ways to mount a file or folder database.
const (
	// MountCopy puts the database where the reference node's copy would be, /mnt/data/<file name>, read-only.
	// Only where the configuration says so itself is it a copy indeed, see Database.Private.
	MountCopy = "copy"
	// MountReadOnly puts it at /mnt/<label><extension>, read-only.
	MountReadOnly = "ro"
	// MountWritable puts a folder at /mnt/<label>, and runs may change it.
	MountWritable = "rw"
)

// Database is one data source of the node.
type Database struct {
	Label     string // an identifier, unique without regard to case
	URI       string // an absolute path, or the address of a service with whatever credentials it contains
	Type      string // csv, parquet, sql, sparql, excel, omop, folder, other
	MountMode string // MountCopy, MountReadOnly or MountWritable; without meaning for services
	Private   bool   // each run gets a copy of the file, which it may change and which goes with it
	SizeLimit int64  // bytes of a folder that is MountWritable
	Env       Env    // given to runs that ask for this database
	// Endpoints are where a service listens: what runs that ask for it can
	// connect to. Empty where the URI does not tell.
	Endpoints []hostport.Pair
}

// IsPath reports whether the database is a file or folder of this machine.
func (d Database) IsPath() bool { return strings.HasPrefix(d.URI, "/") }

// Tunnel is an SSH tunnel, and where runs find it.
type Tunnel struct {
	At hostport.Pair
	tunnel.Config
}

// Whitelist is what runs reach through the HTTP proxy.
type Whitelist struct {
	Rules egress.Rules    // for every run
	Some  []WhitelistRule // more for some runs
}

// WhitelistRule is for some runs.
type WhitelistRule struct {
	Runs  policy.Selector
	Pairs []string // host:port
}

func (w Whitelist) equal(o Whitelist) bool {
	return reflect.DeepEqual(w.Rules, o.Rules) && slices.EqualFunc(w.Some, o.Some, func(a, b WhitelistRule) bool {
		return a.Runs.Equal(b.Runs) && slices.Equal(a.Pairs, b.Pairs)
	})
}

// Reachable are the services and tunnels together.
func (c *Config) Reachable() []reach.Service {
	out := slices.Clone(c.Services)
	for _, t := range c.Tunnels {
		out = append(out, reach.Service{At: t.At, Target: reach.Target{Kind: reach.Tunnel, Address: t.At.String()}})
	}
	return out
}

// Encryption is how this node's collaboration protects inputs and results.
type Encryption struct {
	Enabled    bool
	PrivateKey string // path of the organization's private key (PEM); "" only when not enabled
	// PassphraseFile holds the private key's passphrase in one line; "" is no file.
	PassphraseFile string
}

// Registry is a login for image registries.
type Registry struct {
	Registry string // "host[:port]" or "host[:port]/path" for the repositories below that path
	Username string
	Password Secret
}

// RegistryAccess says where logins, mirrors and certificates of registries are.
type RegistryAccess struct {
	AuthFiles []string // with logins, as docker login and podman login write them
	HostFiles bool     // the files that those keep for the node's user count too
	CertsDirs []string // with a directory for each registry, as containerd's certs.d
}

// LogFormat is how the node writes its own log.
type LogFormat string

// Log formats.
const (
	LogAuto    LogFormat = "auto" // LogJournal where standard error is systemd's journal, else LogText
	LogText    LogFormat = "text"
	LogJournal LogFormat = "journal" // without a time, with syslog's priorities
	LogJSON    LogFormat = "json"
)

// LogFormats are all of them.
var LogFormats = []string{string(LogAuto), string(LogText), string(LogJournal), string(LogJSON)}

// Prometheus is the reporting of machine metrics to the server.
type Prometheus struct {
	Enabled  bool
	Interval time.Duration
}

// Runtime is the container runtime.
type Runtime struct {
	Endpoint string // "unix:///run/containerd/containerd.sock"; "" starts the node's own containerd
	Handler  string // the runtime's handler (runtime class); "" is its default
	UserNS   string // UserNSHost, UserNSAuto or UserNSRequired
}

// Whose root an algorithm's root is: the machine's, nobody's where that can be,
// or nobody's in any case.
const (
	UserNSHost     = "host"
	UserNSAuto     = "auto"
	UserNSRequired = "required"
)

// UserNSModes are all of them.
var UserNSModes = []string{UserNSHost, UserNSAuto, UserNSRequired}

// Proxy is the vantage6 API that each run sees.
type Proxy struct {
	Port int // inside the run's own network, so runs never collide
}
