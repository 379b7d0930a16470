package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/keyfile"
	"github.com/v6node/v6node/proxy/e2e"
)

// clinic is a server with a node, and a directory with its data and API key.
type clinic struct {
	*standin.Server
	org             int64
	key             string
	dir, file       string // where the configuration is to be
	data, keyInFile string
}

func newClinic(t *testing.T, encrypted bool) clinic {
	t.Helper()
	s, err := standin.New(standin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := clinic{Server: s, org: s.AddOrganization("Maastro"), dir: t.TempDir()}
	c.key = s.AddNode(c.org, s.AddCollaboration("Lung", encrypted, c.org))
	c.file, c.data, c.keyInFile = filepath.Join(c.dir, "etc", "alpha.yaml"), filepath.Join(c.dir, "patients.csv"), filepath.Join(c.dir, "api.key")
	if err := errors.Join(os.WriteFile(c.data, []byte("a\n1\n"), 0o600), os.WriteFile(c.keyInFile, []byte(c.key+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c clinic) url() string { return fmt.Sprintf("http://127.0.0.1:%d", c.Port()) }

// flags answer everything of an open collaboration.
func (c clinic) flags(more ...string) []string {
	return append([]string{"init", "--yes", "--config", c.file, "--server-url", c.url(), "--api-path", c.APIPath(), "--api-key-file", c.keyInFile,
		"--database", "default=" + c.data, "--allow-algorithm", `^registry\.example\.org/[a-z]{1,9}$`}, more...)
}

// without takes a flag and its value out.
func without(args []string, flag string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		if args[i] == flag {
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

func TestInitWithAllAnswersWritesAConfigurationThatFits(t *testing.T) {
	c := newClinic(t, false)
	out, errOut, code := v6node(t, t.Context(), c.flags("-o", "json")...)
	var r initReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("%d, %v\n%s%s", code, err, out, errOut)
	}
	if r.File != c.file || r.Organization != "Maastro" || r.Collaboration != "Lung" || r.Encrypted || r.KeyCreated || len(r.Checks) < 4 ||
		r.Next[1] != "v6node run --config "+c.file {
		t.Errorf("%+v", r)
	}
	if info, err := os.Stat(c.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	cfg, warnings, err := config.Load(c.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Errorf("it is warned of: %s", w)
	}
	if cfg.Name != "alpha" || cfg.APIKey.Reveal() != c.key || cfg.APIKeyFile != c.keyInFile || len(cfg.Databases) != 1 || cfg.Databases[0].URI != c.data ||
		cfg.Databases[0].Type != "csv" || cfg.Policies.AllowedAlgorithms[0] != `^registry\.example\.org/[a-z]{1,9}$` {
		t.Errorf("%+v", cfg)
	}
	text, err := os.ReadFile(c.file)
	if err != nil || strings.Contains(string(text), c.key) || strings.Contains(out+errOut, c.key) {
		t.Errorf("the key is shown: %v\n%s", err, text)
	}
	// Never over what exists, unless that is wanted.
	if _, errOut, code := v6node(t, t.Context(), c.flags()...); code != exitFailure || !strings.Contains(errOut, "--force") {
		t.Errorf("again: %d, %s", code, errOut)
	}
	out, errOut, code = v6node(t, t.Context(), without(c.flags("--force", "--no-databases", "--cri-endpoint", "unix:///run/x.sock"), "--database")...)
	if cfg, _, err := config.Load(c.file); code != 0 || err != nil || len(cfg.Databases) != 0 || cfg.Runtime.Endpoint != "unix:///run/x.sock" || !strings.Contains(out, "v6node check --config "+c.file) {
		t.Errorf("%d, %+v, %v\n%s%s", code, cfg, err, out, errOut)
	}
}

func TestInitNamesTheFlagOfAnAnswerThatIsMissingOrWrong(t *testing.T) {
	c, sealed := newClinic(t, false), newClinic(t, true)
	open := filepath.Join(c.dir, "open.key")
	wrong := filepath.Join(c.dir, "wrong.key")
	if err := errors.Join(os.WriteFile(open, []byte(c.key), 0o644), os.WriteFile(wrong, []byte("wrong"), 0o600)); err != nil {
		t.Fatal(err)
	}
	key, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(c.dir, "other.pem")
	if err := keyfile.Create(other, key, nil); err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nothing", []string{"init", "--yes", "--config", c.file}, exitUsage, "--server-url, --api-key-file or --api-key-stdin, --database or --no-databases, --allow-algorithm or --allow-all-algorithms"},
		{"no terminal", []string{"init", "--config", c.file, "--server-url", c.url()}, exitUsage, "--api-key-file or"},
		{"both", c.flags("--no-databases"), exitUsage, "--database and --no-databases"},
		{"no address", append(without(c.flags(), "--server-url"), "--server-url", "v6.example.org"), exitUsage, "--server-url: server_url must be an address"},
		{"no server", append(without(c.flags(), "--server-url"), "--server-url", "http://127.0.0.1:1"), exitFailure, "correct server_url"},
		{"no API", append(without(c.flags(), "--api-path"), "--api-path", "/not"), exitFailure, "api_path"},
		{"no key", append(without(c.flags(), "--api-key-file"), "--api-key-file", c.dir+"/none"), exitUsage, "--api-key-file"},
		{"open key", append(without(c.flags(), "--api-key-file"), "--api-key-file", open), exitUsage, "chmod 600"},
		{"wrong key", append(without(c.flags(), "--api-key-file"), "--api-key-file", wrong), exitAPIKey, "API key"},
		{"no data", append(without(c.flags(), "--database"), "--database", "a="+c.dir+"/none.csv"), exitUsage, "--database: the database a: "},
		{"no type", append(without(c.flags(), "--database"), "--database", "a="+c.dir+"/none.dat"), exitUsage, "a=TYPE:"},
		{"a password", append(without(c.flags(), "--database"), "--database", "a=sql:postgres://u:"+c.key+"@db:1/x"), exitUsage, "--database: the address of a has a password"},
		{"no label", append(without(c.flags(), "--database"), "--database", c.data), exitUsage, "LABEL=PATH"},
		{"bad label", append(without(c.flags(), "--database"), "--database", "a-b="+c.data), exitUsage, "not an identifier"},
		{"two labels", c.flags("--database", "DEFAULT="+c.data), exitUsage, "differ only in case"},
		{"bad image", append(without(c.flags(), "--allow-algorithm"), "--allow-algorithm", "a["), exitUsage, "--allow-algorithm: policies.allowed_algorithms"},
		{"bad runtime", c.flags("--cri-endpoint", "/run/x"), exitUsage, "--cri-endpoint: runtime.endpoint"},
		{"bad name", c.flags("--name", "../x"), exitUsage, "--name"},
		{"a key too many", c.flags("--private-key", other), exitUsage, "leave out --private-key"},
		{"a key too few", sealed.flags(), exitUsage, "--private-key"},
		{"no key file", sealed.flags("--private-key", sealed.dir+"/none.pem"), exitEncryption, "--create-key"},
		{"an argument", c.flags("x"), exitUsage, "takes no argument"},
	} {
		_, errOut, code := v6node(t, t.Context(), k.args...)
		if code != k.code || !strings.Contains(errOut, k.want) || strings.Contains(errOut, c.key) {
			t.Errorf("%s: %d, %s; want %d, %q", k.name, code, errOut, k.code, k.want)
		}
	}
	for _, at := range []clinic{c, sealed} {
		if _, err := os.Stat(at.file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("something was written: %v", err)
		}
	}
}

func TestInitMakesTheKeyOfAnEncryptedCollaborationOnlyWhereThereIsNone(t *testing.T) {
	c := newClinic(t, true)
	file := filepath.Join(c.dir, "etc", "private_key.pem")
	out, errOut, code := v6node(t, t.Context(), c.flags("--private-key", file, "--create-key")...)
	if code != 0 || !strings.Contains(out, "Made a key of 4096 bits") {
		t.Fatalf("%d\n%s%s", code, out, errOut)
	}
	cfg, _, err := config.Load(c.file)
	if err != nil || !cfg.Encryption.Enabled || cfg.Encryption.PrivateKey != file {
		t.Fatalf("%+v, %v", cfg, err)
	}
	key, err := keyfile.Read(file, "")
	if err != nil {
		t.Fatal(err)
	}
	if c.PublicKey(c.org) != "" {
		t.Error("init has published the key, which is the node's to do")
	}
	if _, errOut, code := v6node(t, t.Context(), "key", "upload", "--config", c.file); code != 0 || c.PublicKey(c.org) != key.Public().Base64() {
		t.Fatalf("%d, %s", code, errOut)
	}
	// The same key fits; another one does not, and a new one would not.
	if _, errOut, code := v6node(t, t.Context(), c.flags("--private-key", file, "--force")...); code != 0 {
		t.Errorf("with the key: %d, %s", code, errOut)
	}
	if _, errOut, code := v6node(t, t.Context(), c.flags("--private-key", file+".new", "--create-key", "--force")...); code != exitEncryption || !strings.Contains(errOut, "a new key would not do") {
		t.Errorf("with a new one: %d, %s", code, errOut)
	}
	other, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyfile.Create(file+".other", other, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, code := v6node(t, t.Context(), c.flags("--private-key", file+".other", "--force")...); code != exitEncryption {
		t.Errorf("with another one: %d", code)
	}
	if cfg, _, err := config.Load(c.file); err != nil || cfg.Encryption.PrivateKey != file {
		t.Errorf("the configuration was replaced: %v", err)
	}
}

func TestInitReadsTheKeyFromStandardInputAndMayLeaveTheServerAlone(t *testing.T) {
	c := newClinic(t, false)
	c.Close()
	for _, k := range []struct {
		name, in string
		ok       bool
	}{{"nothing", "", false}, {"a line", c.key + "\nmore\n", true}} {
		cmd := program(t, without(c.flags("--offline", "--api-key-stdin"), "--api-key-file")...)
		cmd.Stdin = strings.NewReader(k.in)
		out, err := cmd.CombinedOutput()
		if (err == nil) != k.ok || strings.Contains(string(out), c.key) {
			t.Errorf("%s: %v\n%s", k.name, err, out)
		}
	}
	cfg, warnings, err := config.Load(c.file)
	if err != nil || len(warnings) > 0 || cfg.APIKey.Reveal() != c.key || cfg.APIKeyFile != "" {
		t.Errorf("%v, %q, %v", cfg, warnings, err)
	}
}

// dialogue is a program on a terminal, and who answers it.
type dialogue struct {
	t      *testing.T
	cmd    *exec.Cmd
	screen *os.File
	out    *bufio.Reader
	seen   strings.Builder
}

func talk(t *testing.T, args ...string) *dialogue {
	t.Helper()
	d := &dialogue{t: t, cmd: program(t, args...)}
	screen, tty := openTerminal(t, 200, 50)
	d.screen, d.out = screen, bufio.NewReader(screen)
	d.cmd.Stdin, d.cmd.Stdout, d.cmd.Stderr = tty, tty, tty
	if err := errors.Join(d.cmd.Start(), tty.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
		}
	})
	return d
}

// expect waits for a text on the screen.
func (d *dialogue) expect(text string) {
	d.t.Helper()
	begun := d.seen.Len()
	for !strings.Contains(d.seen.String()[begun:], text) {
		b, err := d.out.ReadByte()
		if err != nil {
			d.t.Fatalf("%q was not seen: %v\n%s", text, err, d.seen.String())
		}
		d.seen.WriteByte(b)
	}
}

func (d *dialogue) keys(text string) {
	d.t.Helper()
	if _, err := d.screen.WriteString(text); err != nil {
		d.t.Fatal(err)
	}
}

// answer types an answer to a question.
func (d *dialogue) answer(question, text string) {
	d.t.Helper()
	d.expect(question)
	d.keys(text + "\n")
}

// rest is all that comes until the end, and how the program ended.
func (d *dialogue) rest() (string, error) {
	for {
		b, err := d.out.ReadByte()
		if err != nil { // EIO when the last user of the terminal is gone
			break
		}
		d.seen.WriteByte(b)
	}
	return d.seen.String(), d.cmd.Wait()
}

func TestInitAsksUntilEachAnswerHolds(t *testing.T) {
	c := newClinic(t, true)
	d := talk(t, "init", "--config", c.file)
	d.answer("Address of the vantage6 server", "v6.example.org")
	d.expect("must be an address")
	d.answer("Address of the vantage6 server", "http://127.0.0.1:1")
	d.expect("cannot be reached")
	d.answer("Address of the vantage6 server", c.url())
	if c.APIPath() != "/api" {
		d.answer("Path of the server's API", c.APIPath())
	}
	d.answer("API key of the node", "wrong-key")
	d.answer("API key of the node", c.key)
	d.expect("of Maastro in Lung")
	d.answer("private key", "")
	d.answer("Make a new key there?", "maybe")
	d.answer("Make a new key there?", "y")
	d.answer("Label of a database (- for none) [default]", "")
	d.answer("Its file, folder or address", c.data+".none.csv")
	d.answer("Its type", "")
	d.expect("does not exist")
	d.answer("Label of a database", "")
	d.answer("Its file, folder or address", c.data)
	d.answer("[csv]", "")
	d.answer("Label of another database", "")
	d.answer("Images that may run", "registry.example.org/average:1 registry.example.org/glm")
	d.answer("Write "+c.file+"?", "")
	out, err := d.rest()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(out, c.key) || strings.Contains(out, "wrong-key") {
		t.Errorf("the terminal shows a key:\n%s", out)
	}
	cfg, warnings, err := config.Load(c.file)
	if err != nil || len(warnings) > 0 || cfg.APIKey.Reveal() != c.key || !cfg.Encryption.Enabled || len(cfg.Policies.AllowedAlgorithms) != 2 {
		t.Errorf("%v, %q, %v", cfg, warnings, err)
	}
	if _, err := keyfile.Read(filepath.Join(filepath.Dir(c.file), "private_key.pem"), ""); err != nil {
		t.Error(err)
	}
}

func TestInitThatIsLeftWritesNothingAndLeavesTheTerminalAsItWas(t *testing.T) {
	c := newClinic(t, false)
	for name, leave := range map[string]func(d *dialogue){
		"Ctrl-C": func(d *dialogue) {
			if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		},
		"Ctrl-D": func(d *dialogue) { d.keys("\x04") },
	} {
		d := talk(t, "init", "--config", c.file, "--server-url", c.url(), "--api-path", c.APIPath())
		before, err := unix.IoctlGetTermios(int(d.screen.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		d.expect("API key of the node")
		leave(d)
		out, err := d.rest()
		if err == nil || strings.Contains(out, "panic") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		after, err := unix.IoctlGetTermios(int(d.screen.Fd()), unix.TCGETS)
		if err != nil || after.Lflag != before.Lflag|unix.ECHO {
			t.Errorf("%s: the terminal has %x, before %x, %v", name, after.Lflag, before.Lflag, err)
		}
		if _, err := os.Stat(c.file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: something was written: %v", name, err)
		}
	}
}
