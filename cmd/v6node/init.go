package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/internal/newfile"
	"github.com/v6node/v6node/internal/plainfile"
	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/check"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/keyfile"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/node/setup"
	"github.com/v6node/v6node/proxy/e2e"
)

// maxKeyLine bounds an API key that is read, which is a short line.
const maxKeyLine = 4 << 10

func initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make the configuration of a new node",
		Description: `Asks what a node cannot do without, tries each answer (is the server reached, does it take
the API key, does the encryption fit the collaboration, can the databases be read), and
writes a configuration with comments, readable by its owner only:
/etc/v6node/NAME.yaml, for a normal user ~/.config/v6node/NAME.yaml.
Nothing is written before all is answered, and nothing over a file that exists.

Each answer can be given as a flag. With --yes, or where standard input is no terminal,
nothing is asked, and an answer that is missing is an error. The API key is never part
of the command line: it is asked for, or comes from a file or from standard input.

Examples:
   v6node init
   v6node init --name alpha --server-url https://v6.example.org --database default=/data/patients.csv
   v6node init --yes --server-url https://v6.example.org --api-key-file /etc/v6node/alpha.key \
       --database default=/data/patients.csv --database omop=omop:postgres://db:5432/cdm \
       --allow-algorithm registry.example.org/algorithms/average --private-key /etc/v6node/key.pem --create-key`,
		OnUsageError:    usageError,
		HideHelpCommand: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "call the node, and its file, `NAME`", Value: "node"},
			&cli.PathFlag{Name: "config", Aliases: []string{"c"}, Usage: "write `FILE` instead of NAME.yaml in the usual directory", TakesFile: true},
			&cli.StringFlag{Name: "server-url", Usage: "speak to the vantage6 server at `URL`, such as https://v6.example.org"},
			&cli.StringFlag{Name: "api-path", Usage: "find the server's API below `PATH`", Value: "/api"},
			&cli.PathFlag{Name: "ca-file", Usage: "trust the certificates in the PEM `FILE` besides those of the system", TakesFile: true},
			&cli.PathFlag{Name: "api-key-file", Usage: "read the node's API key from `FILE`, at each start of the node too", TakesFile: true},
			&cli.BoolFlag{Name: "api-key-stdin", Usage: "read the node's API key from the first line of standard input"},
			&cli.PathFlag{Name: "private-key", Usage: "in an encrypted collaboration: the organization's private key is in `FILE`", TakesFile: true},
			&cli.PathFlag{Name: "passphrase-file", Usage: "the passphrase of the private key is in `FILE`", TakesFile: true},
			&cli.BoolFlag{Name: "create-key", Usage: "make the private key if its file does not exist"},
			&cli.GenericFlag{Name: "database", Usage: "a database, `LABEL=[TYPE:]URI`, without a password; may be repeated", Value: &wordList{}},
			&cli.BoolFlag{Name: "no-databases", Usage: "a node without databases"},
			&cli.GenericFlag{Name: "allow-algorithm", Usage: "let `IMAGE` run, as an entry of policies.allowed_algorithms; may be repeated", Value: &wordList{}},
			&cli.BoolFlag{Name: "allow-all-algorithms", Usage: "let every image run"},
			&cli.StringFlag{Name: "cri-endpoint", Usage: "use the container runtime at `unix:///PATH`; without it the node starts a containerd of its own"},
			&cli.BoolFlag{Name: "offline", Usage: "do not ask the server; with --private-key the collaboration counts as encrypted"},
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "ask nothing"},
			&cli.BoolFlag{Name: "force", Usage: "write over a configuration that exists"},
			outputFlag(asTable),
		},
		Action: initNode,
	}
}

// initReport is what init prints as JSON.
type initReport struct {
	File          string         `json:"file"`
	Node          string         `json:"node,omitempty"` // as the server calls it
	Organization  string         `json:"organization,omitempty"`
	Collaboration string         `json:"collaboration,omitempty"`
	Encrypted     bool           `json:"encrypted"`
	PrivateKey    string         `json:"private_key,omitempty"`
	KeyCreated    bool           `json:"key_created"`
	Checks        []check.Result `json:"checks"`
	Next          []string       `json:"next"`
}

// wordList is the values of a flag that may be repeated. Unlike those of
// StringSliceFlag they may have commas in them.
type wordList []string

func (w *wordList) Set(text string) error {
	*w = append(*w, text)
	return nil
}

func (w *wordList) String() string { return strings.Join(*w, " ") }

func listed(c *cli.Context, flag string) []string {
	if w, ok := c.Generic(flag).(*wordList); ok {
		return *w
	}
	return nil
}

// interview collects the answers of one v6node init.
type interview struct {
	c    *cli.Context
	ask  *asker // nil: nothing is asked
	file string
	a    setup.Answers
	id   *server.Identity // nil with --offline

	createKey bool
	report    initReport
}

func initNode(c *cli.Context) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	i := &interview{c: c, file: c.Path("config"), report: initReport{Checks: []check.Result{}}}
	if name := c.String("name"); name == "" || strings.ContainsAny(name, "/\x00") || name[0] == '.' || name[0] == '-' {
		return cli.Exit(fmt.Sprintf("--name %q cannot be the name of a file: use letters, digits, . _ and -", name), exitUsage)
	}
	if i.file == "" {
		i.file = filepath.Join(configDir(), c.String("name")+".yaml")
	}
	var err error
	if i.file, err = filepath.Abs(i.file); err != nil {
		return err
	}
	if _, err := os.Lstat(i.file); err == nil && !c.Bool("force") {
		return fmt.Errorf("%s exists already: choose another --name or --config, or add --force to write over it", i.file)
	}
	if !c.Bool("yes") {
		i.ask = newAsker(c.Context, os.Stdin, c.App.ErrWriter)
	}
	for _, step := range []func() error{i.complete, i.server, i.login, i.encryption, i.databases, i.algorithms, i.runtime, i.try, i.confirm, i.write} {
		if err := step(); err != nil {
			return err
		}
	}
	return i.print()
}

// contradictions are flags of which one at most is given.
var contradictions = [][2]string{{"api-key-file", "api-key-stdin"}, {"database", "no-databases"}, {"allow-algorithm", "allow-all-algorithms"}}

// complete refuses flags that contradict each other and, where nothing is asked,
// names all that are missing.
func (i *interview) complete() error {
	for _, pair := range contradictions {
		if i.c.IsSet(pair[0]) && i.c.IsSet(pair[1]) {
			return cli.Exit(fmt.Sprintf("--%s and --%s contradict each other: use one of the two", pair[0], pair[1]), exitUsage)
		}
	}
	if i.ask != nil {
		return nil
	}
	var missing []string
	if !i.c.IsSet("server-url") {
		missing = append(missing, "--server-url")
	}
	for _, pair := range contradictions {
		if !i.c.IsSet(pair[0]) && !i.c.IsSet(pair[1]) {
			missing = append(missing, "--"+pair[0]+" or --"+pair[1])
		}
	}
	if len(missing) > 0 {
		return cli.Exit("nothing is asked here, so these must be given: "+strings.Join(missing, ", "), exitUsage)
	}
	return nil
}

// answer gets a value from a flag or by asking, until check has no objection.
func (i *interview) answer(flag, question, standard string, check func(string) error) error {
	if i.c.IsSet(flag) || i.ask == nil {
		if err := check(i.c.String(flag)); err != nil {
			return wrongFlag(flag, err)
		}
		return nil
	}
	for {
		text, err := i.ask.line(question, standard)
		if err != nil {
			return err
		}
		if err = check(text); err == nil || i.c.Context.Err() != nil {
			return err
		}
		i.ask.say("%v", err)
	}
}

// wrongFlag is the error of an answer that was given as a flag. Its exit code is
// that of what is wrong, and that of wrong usage where that is nothing special.
func wrongFlag(flag string, err error) error {
	if exitCode(err) != exitFailure || errors.Is(err, server.ErrUnreachable) || errors.Is(err, server.ErrNotAPI) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("--%s: %w", flag, err)
	}
	return cli.Exit(fmt.Sprintf("--%s: %v", flag, err), exitUsage)
}

// session opens a session with the server as far as it is known.
func (i *interview) session(key config.Secret) (*server.V4, error) {
	cfg, _, err := i.a.Config(i.file)
	if err != nil {
		return nil, err
	}
	return server.NewV4(server.Config{URL: cfg.Server.URL, Port: cfg.Server.Port, APIPath: cfg.Server.APIPath, CAFile: cfg.Server.CAFile, APIKey: key.Reveal(), Version: i.c.App.Version})
}

// noKey stands for the API key where the server is asked for its version only.
var noKey = config.NewSecret("none")

func (i *interview) server() error {
	i.a.APIPath, i.a.CAFile = i.c.String("api-path"), i.c.Path("ca-file")
	i.a.APIKey = noKey
	return i.answer("server-url", "Address of the vantage6 server (https://...)", "", func(text string) error {
		i.a.ServerURL = text
		if text == "" {
			return errors.New("write the address of the vantage6 server, such as https://v6.example.org")
		}
		if err := i.a.Check("server_url", "api_path", "ca_file"); err != nil {
			return err
		}
		if i.c.Bool("offline") {
			return nil
		}
		return i.greet()
	})
}

// greet asks the server for its version, and the administrator for what that
// shows to be missing.
func (i *interview) greet() error {
	for {
		api, err := i.session(noKey)
		if err != nil {
			return err
		}
		greeting, err := api.Greet(i.c.Context)
		api.Close()
		if err == nil {
			if v := greeting.Version; v != "" && !strings.HasPrefix(v, "4.") {
				return fmt.Errorf("the server has version %s, and this v6node speaks to version 4", v)
			}
			return nil
		}
		question, to := "", (*string)(nil)
		var unknown x509.UnknownAuthorityError
		switch {
		case errors.As(err, &unknown):
			question, to = "PEM file with the certificate of the server's authority", &i.a.CAFile
		case errors.Is(err, server.ErrNotAPI):
			question, to = "Path of the server's API", &i.a.APIPath
		}
		err = fmt.Errorf("%w: %s", err, check.Unanswered(err))
		if i.ask == nil || to == nil {
			return err
		}
		i.ask.say("%v", err)
		text, asked := i.ask.line(question+" (empty to correct the address)", "")
		if asked != nil || text == "" {
			return errors.Join(asked, errors.New("write the address again"))
		}
		before := *to
		*to = text
		if err := i.a.Check("api_path", "ca_file"); err != nil {
			*to = before
			return err
		}
	}
}

// login gets the API key, and learns whose node it is.
func (i *interview) login() error {
	i.a.APIKey = config.Secret{}
	for {
		key, err := i.apiKey()
		if err != nil {
			return err
		}
		i.a.APIKey = config.NewSecret(key)
		err = i.a.Check("api_key")
		if err == nil && key == "" {
			err = errors.New("the API key is empty; copy it from where the node was registered at the server")
		}
		if err == nil && !i.c.Bool("offline") {
			err = i.connect()
		}
		if err == nil {
			return nil
		}
		if i.ask == nil || i.c.IsSet("api-key-file") || i.c.Context.Err() != nil {
			return fmt.Errorf("the API key: %w", err)
		}
		i.ask.say("%v", err)
	}
}

// apiKey reads the key from where the flags say, or asks for it without showing it.
func (i *interview) apiKey() (string, error) {
	if file := i.c.Path("api-key-file"); file != "" {
		i.a.APIKeyFile = file
		data, err := plainfile.Read(file, maxKeyLine)
		if err != nil {
			return "", cli.Exit(fmt.Sprintf("--api-key-file: %v", err), exitUsage)
		}
		if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o077 != 0 {
			return "", cli.Exit(fmt.Sprintf("--api-key-file: others may read %s (mode %04o): chmod 600 %[1]s", file, info.Mode().Perm()), exitUsage)
		}
		return strings.TrimSpace(string(data)), nil
	}
	if i.ask != nil {
		return i.ask.secret("API key of the node (it is not shown)")
	}
	line, err := bufio.NewReader(io.LimitReader(&patient{i.c.Context, os.Stdin}, maxKeyLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// connect logs in at the server.
func (i *interview) connect() error {
	api, err := i.session(i.a.APIKey)
	if err != nil {
		return err
	}
	defer api.Close()
	if i.id, err = api.Connect(i.c.Context); err != nil {
		return fmt.Errorf("log in at the server: %w", err)
	}
	i.report.Node, i.report.Organization, i.report.Collaboration = i.id.NodeName, i.id.OrganizationName, i.id.CollaborationName
	if i.ask != nil {
		i.ask.say("this is node %d (%s) of %s in %s", i.id.NodeID, i.id.NodeName, i.id.OrganizationName, i.id.CollaborationName)
	}
	return nil
}

// encryption finds the key that fits the collaboration.
func (i *interview) encryption() error {
	i.a.PassphraseFile = i.c.Path("passphrase-file")
	encrypted := i.c.IsSet("private-key")
	switch {
	case i.id != nil && !i.id.Encrypted && encrypted:
		return cli.Exit(fmt.Sprintf("the collaboration %s is not encrypted: leave out --private-key", i.id.CollaborationName), exitUsage)
	case i.id != nil:
		encrypted = i.id.Encrypted
	case i.ask != nil && !encrypted:
		var err error
		if encrypted, err = i.ask.yes("Is the collaboration encrypted?", false); err != nil {
			return err
		}
	}
	if !encrypted {
		return nil
	}
	i.report.Encrypted = true
	if i.ask == nil && !i.c.IsSet("private-key") {
		return cli.Exit(fmt.Sprintf("the collaboration %s is encrypted: name the organization's key with --private-key, and add --create-key to have it made", i.id.CollaborationName), exitUsage)
	}
	return i.answer("private-key", "The collaboration is encrypted. File with the organization's private key", filepath.Join(filepath.Dir(i.file), "private_key.pem"), i.privateKey)
}

// privateKey looks whether a key fits, or is to be made.
func (i *interview) privateKey(file string) error {
	if err := (setup.Answers{PrivateKey: file, PassphraseFile: i.a.PassphraseFile}).Check("encryption.private_key", "encryption.passphrase_file"); err != nil {
		return err
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	i.a.PrivateKey, i.createKey = file, false
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return i.newKey(file)
	}
	if i.id == nil {
		_, err := keyfile.Read(file, i.a.PassphraseFile)
		return err
	}
	_, _, err = node.FitEncryption(config.Encryption{Enabled: true, PrivateKey: file, PassphraseFile: i.a.PassphraseFile}, i.id)
	return err
}

// newKey decides whether a key is made later, when all is answered.
func (i *interview) newKey(file string) error {
	if i.id != nil && i.id.OrganizationKey != "" {
		return fmt.Errorf("%w: %s does not exist, and a new key would not do: the server has a public key of %s already; name the private key that belongs to it", node.ErrEncryption, file, i.id.OrganizationName)
	}
	i.createKey = i.c.Bool("create-key")
	if i.ask != nil && !i.createKey {
		var err error
		if i.createKey, err = i.ask.yes(file+" does not exist. Make a new key there?", true); err != nil {
			return err
		}
	}
	if !i.createKey {
		return fmt.Errorf("%w: %s does not exist: name another file, or add --create-key to have the key made", node.ErrEncryption, file)
	}
	return nil
}

func (i *interview) databases() error {
	for _, text := range listed(i.c, "database") {
		d, err := setup.ParseDatabase(text)
		if err == nil && d.Secret() {
			err = fmt.Errorf("the address of %s has a password in it, which every user of the machine could read in the list of processes: answer the question instead, or give the address without it and write the password into the file, as env of the database", d.Label)
		}
		if err == nil {
			err = i.addDatabase(d)
		}
		if err != nil {
			return wrongFlag("database", err)
		}
	}
	if i.ask == nil || i.c.IsSet("database") || i.c.IsSet("no-databases") {
		return nil
	}
	for {
		question, standard := "Label of a database (- for none)", "default"
		if len(i.a.Databases) > 0 {
			question, standard = "Label of another database (empty for no more)", ""
		}
		label, err := i.ask.line(question, standard)
		if err != nil || label == "-" || label == "" {
			return err
		}
		uri, err := i.ask.line("  Its file, folder or address", "")
		if err != nil {
			return err
		}
		guess := setup.TypeOf(uri)
		kind, err := i.ask.line("  Its type ("+strings.Join(config.DatabaseTypes(), ", ")+")", guess)
		if err != nil {
			return err
		}
		if err := i.addDatabase(setup.Database{Label: label, URI: uri, Type: kind}); err != nil {
			i.ask.say("%v", err)
		}
	}
}

// addDatabase takes a database that can be read.
func (i *interview) addDatabase(d setup.Database) error {
	if d.URI == "" {
		return fmt.Errorf("the database %s has no file or address", d.Label)
	}
	a := i.a
	a.Databases = append(slices.Clone(a.Databases), d)
	if err := a.Check("databases"); err != nil {
		return err
	}
	one := a
	one.Databases = []setup.Database{d}
	if failed, err := i.run(one, func(o check.Options) []check.Check { return o.Databases() }); err != nil || failed != "" {
		if err != nil {
			return err
		}
		return fmt.Errorf("the database %s: %s", d.Label, strings.TrimPrefix(failed, fmt.Sprintf("database %q: ", d.Label)))
	}
	i.a.Databases = a.Databases
	return nil
}

func (i *interview) algorithms() error {
	given := listed(i.c, "allow-algorithm")
	if i.ask == nil || i.c.IsSet("allow-algorithm") || i.c.IsSet("allow-all-algorithms") {
		i.a.Algorithms = given
		if err := i.a.Check("policies"); err != nil {
			return wrongFlag("allow-algorithm", err)
		}
		return nil
	}
	for {
		text, err := i.ask.line("Images that may run on the data, with spaces between them (empty for all)", "")
		if err != nil {
			return err
		}
		i.a.Algorithms = strings.Fields(text)
		if err = i.a.Check("policies.allowed_algorithms"); err == nil {
			return nil
		}
		i.ask.say("%v", err)
	}
}

func (i *interview) runtime() error {
	i.a.Endpoint = i.c.String("cri-endpoint")
	if err := i.a.Check("runtime"); err != nil {
		return wrongFlag("cri-endpoint", err)
	}
	return nil
}

// run makes checks of answers, and returns what failed.
func (i *interview) run(a setup.Answers, choose func(check.Options) []check.Check) (failed string, err error) {
	if a.APIKey.IsZero() {
		a.APIKey = noKey
	}
	cfg, warnings, err := a.Config(i.file)
	if err != nil {
		return "", err
	}
	o := check.Options{Config: cfg, Warnings: warnings, File: i.file, Version: i.c.App.Version}
	i.report.Checks = i.report.Checks[:0]
	_, err = check.Run(i.c.Context, choose(o), func(r check.Result) {
		i.report.Checks = append(i.report.Checks, r)
		if r.Status == check.Fail {
			failed = strings.TrimSuffix(r.Detail+": "+r.Fix, ": ")
		}
	})
	return failed, err
}

// try looks at all answers together, as v6node check will.
func (i *interview) try() error {
	a := i.a
	if i.createKey { // there is nothing to compare yet
		a.PrivateKey, a.PassphraseFile = "", ""
	}
	_, err := i.run(a, func(o check.Options) []check.Check {
		all := o.Databases()
		if !i.c.Bool("offline") && !i.createKey {
			all = append([]check.Check{o.Server()}, all...)
		}
		return all
	})
	if err != nil {
		return err
	}
	failed := 0
	for _, r := range i.report.Checks {
		if !wantsJSON(i.c) {
			printCheck(i.c.App.ErrWriter, r)
		}
		if r.Status == check.Fail {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	if i.ask != nil {
		if yes, err := i.ask.yes("Not all is well. Go on all the same?", false); yes || err != nil {
			return err
		}
	}
	if wantsJSON(i.c) {
		if err := printJSON(i.c.App.Writer, i.report); err != nil {
			return err
		}
	}
	return cli.Exit("not all answers hold, and nothing was written", exitCheck)
}

func (i *interview) confirm() error {
	if i.ask == nil {
		return nil
	}
	yes, err := i.ask.yes("Write "+i.file+"?", true)
	if err == nil && !yes {
		err = errors.New("nothing was written")
	}
	return err
}

func (i *interview) write() error {
	if i.createKey {
		if err := i.makeKey(); err != nil {
			return err
		}
	}
	text, err := i.a.Text()
	if err != nil {
		return err
	}
	if _, _, err := config.Parse(i.file, text); err != nil {
		return fmt.Errorf("the configuration could not be used, so it is not written: %w", err)
	}
	if err := newfile.Write(i.file, text, i.c.Bool("force")); err != nil {
		return fmt.Errorf("the configuration cannot be written: %w", err)
	}
	return nil
}

// makeKey makes the organization's key.
func (i *interview) makeKey() error {
	var passphrase []byte
	var err error
	if i.a.PassphraseFile != "" {
		if passphrase, err = keyfile.Passphrase(i.a.PassphraseFile); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(i.a.PrivateKey), 0o700); err != nil {
		return err
	}
	key, err := e2e.GeneratePrivateKey(defaultBits)
	if err != nil {
		return err
	}
	if err := keyfile.Create(i.a.PrivateKey, key, passphrase); err != nil {
		return err
	}
	i.report.KeyCreated = true
	return nil
}

func (i *interview) print() error {
	i.report.File, i.report.PrivateKey = i.file, i.a.PrivateKey
	i.report.Next = nextCommands(i.file)
	if wantsJSON(i.c) {
		return printJSON(i.c.App.Writer, i.report)
	}
	w := i.c.App.Writer
	if i.report.KeyCreated {
		fmt.Fprintf(w, "Made a key of %d bits in %s. Keep a copy of it: what others encrypt for a lost key is lost.\nThe node publishes its public half at its first start.\n", defaultBits, printable(i.a.PrivateKey))
	}
	fmt.Fprintf(w, "Wrote %s, for its owner only.\n", printable(i.file))
	return printNext(w, i.report.Next)
}
