package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/keyfile"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/proxy/e2e"
)

// defaultBits is what the reference project's keys have.
const defaultBits = 4096

func keyCommand() *cli.Command {
	const fromConfig = "use encryption.private_key and the server of the configuration `FILE`"
	passphraseFlag := func(use string) cli.Flag {
		return &cli.PathFlag{Name: "passphrase-file", Usage: use + "; else " + keyfile.PassphraseVariable + " of the environment", TakesFile: true}
	}
	return &cli.Command{
		Name:  "key",
		Usage: "make, show, publish and check the organization's key",
		Subcommands: []*cli.Command{
			{
				Name:      "create",
				Usage:     "make a private key in a new file",
				ArgsUsage: "FILE",
				Description: `Makes an RSA key and writes the private one to a new file of mode 0600, as PKCS#8 in PEM.
A file that exists stays as it is. Keep a copy in a safe place: what others encrypt for a
key that is lost cannot be read by anybody.

Examples:
   v6node key create /etc/v6node/private_key.pem
   v6node key create key.pem --passphrase-file /run/credentials/passphrase`,
				Flags: []cli.Flag{
					&cli.IntFlag{Name: "bits", Usage: "make a key of `N` bits, 2048 to 16384", Value: defaultBits},
					passphraseFlag("protect the key with the passphrase in `FILE`"),
					outputFlag(asTable),
				},
				OnUsageError: usageError, HideHelpCommand: true, Action: keyCreate,
			},
			{
				Name:      "show",
				Usage:     "show the public key of a private key",
				ArgsUsage: "FILE",
				Description: `Shows length, fingerprint and public key of a private key. The public key is in the form
in which the server keeps it.

Examples:
   v6node key show /etc/v6node/private_key.pem
   v6node key show key.pem -o json | jq -r .public_key`,
				Flags:        []cli.Flag{passphraseFlag("open the key with the passphrase in `FILE`"), outputFlag(asTable)},
				OnUsageError: usageError, HideHelpCommand: true, Action: keyShow,
			},
			{
				Name:  "upload",
				Usage: "publish the public key of the organization at the server",
				Description: `Logs in as the node and publishes the public key that fits encryption.private_key, so that
others encrypt for it. The node does the same at its start where the server has none. A
different key that the server has is replaced only with --replace: tasks that are under
way for the old key then fail.

Examples:
   v6node key upload --config /etc/v6node/node.yaml
   v6node key upload --config node.yaml --replace`,
				Flags: []cli.Flag{
					configFlag(fromConfig),
					&cli.BoolFlag{Name: "replace", Usage: "replace another key that the server has"},
					outputFlag(asTable),
				},
				OnUsageError: usageError, HideHelpCommand: true, Action: keyUpload,
			},
			{
				Name:  "check",
				Usage: "compare the private key with the public one at the server",
				Description: `Logs in as the node and compares. Nothing is changed.

Exit codes: 0 they fit, 17 the server has another key, 18 it has none.

Example:
   v6node key check --config /etc/v6node/node.yaml`,
				Flags:        []cli.Flag{configFlag(fromConfig), outputFlag(asTable)},
				OnUsageError: usageError, HideHelpCommand: true, Action: keyCheck,
			},
		},
	}
}

// keyReport is what the commands print as JSON.
type keyReport struct {
	File        string `json:"file"`
	Bits        int    `json:"bits"`
	Fingerprint string `json:"fingerprint"`
	PublicKey   string `json:"public_key"`
	Protected   *bool  `json:"protected,omitempty"` // by a passphrase; create

	Organization string `json:"organization,omitempty"`
	// Server is what the server has or had before: "same", "other", "none" or "unusable".
	Server            string `json:"server,omitempty"`
	ServerFingerprint string `json:"server_fingerprint,omitempty"`
	Uploaded          *bool  `json:"uploaded,omitempty"` // upload
}

// What the server has.
const (
	hasSame     = "same"
	hasOther    = "other"
	hasNone     = "none"
	hasUnusable = "unusable"
)

func reportKey(file string, k *e2e.PublicKey) *keyReport {
	return &keyReport{File: file, Bits: k.Bits(), Fingerprint: k.Fingerprint(), PublicKey: k.Base64()}
}

func keyCreate(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	file, err := filepath.Abs(c.Args().First())
	if err != nil {
		return err
	}
	var passphrase []byte
	passphrase, err = keyfile.Passphrase(c.Path("passphrase-file"))
	if err != nil && !(errors.Is(err, e2e.ErrPassphrase) && c.Path("passphrase-file") == "") {
		return err
	}
	key, err := e2e.GeneratePrivateKey(c.Int("bits"))
	if err != nil {
		return cli.Exit(fmt.Sprintf("--bits: %v", err), exitUsage)
	}
	if err := keyfile.Create(file, key, passphrase); err != nil {
		return err
	}
	r, protected := reportKey(file, key.Public()), len(passphrase) > 0
	r.Protected = &protected
	if wantsJSON(c) {
		return printJSON(c.App.Writer, r)
	}
	_, err = fmt.Fprintf(c.App.Writer, "Made a key of %d bits in %s, fingerprint %s.\nName it as encryption.private_key, and publish it with v6node key upload.\n", r.Bits, printable(file), r.Fingerprint)
	return err
}

func keyShow(c *cli.Context) error {
	if err := wantArgs(c, 1, 1); err != nil {
		return err
	}
	key, err := keyfile.Read(c.Args().First(), c.Path("passphrase-file"))
	if err != nil {
		return fmt.Errorf("%w: the private key %s: %w", node.ErrEncryption, c.Args().First(), err)
	}
	r := reportKey(c.Args().First(), key.Public())
	if wantsJSON(c) {
		return printJSON(c.App.Writer, r)
	}
	_, err = fmt.Fprintf(c.App.Writer, "bits:         %d\nfingerprint:  %s\npublic key:   %s\n", r.Bits, r.Fingerprint, r.PublicKey)
	return err
}

// atServer compares the configured key with what the server has, and does something with both.
func atServer(c *cli.Context, do func(ctx context.Context, api *server.V4, id *server.Identity, key *e2e.PublicKey, r *keyReport) error) error {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	if !cfg.Encryption.Enabled {
		return fmt.Errorf("%w: the configuration has no key: set encryption.enabled to true and name encryption.private_key", node.ErrEncryption)
	}
	key, err := keyfile.Read(cfg.Encryption.PrivateKey, cfg.Encryption.PassphraseFile)
	if err != nil {
		return fmt.Errorf("%w: the private key %s: %w", node.ErrEncryption, cfg.Encryption.PrivateKey, err)
	}
	api, err := server.NewV4(server.Config{
		URL: cfg.Server.URL, Port: cfg.Server.Port, APIPath: cfg.Server.APIPath, CAFile: cfg.Server.CAFile, APIKey: cfg.APIKey.Reveal(), Version: c.App.Version,
	})
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := api.Connect(c.Context)
	if err != nil {
		return fmt.Errorf("log in at the server: %w", err)
	}
	r := reportKey(cfg.Encryption.PrivateKey, key.Public())
	r.Organization = id.OrganizationName
	r.compare(id.OrganizationKey, key.Public())
	return do(c.Context, api, id, key.Public(), r)
}

// compare notes what the server has.
func (r *keyReport) compare(text string, ours *e2e.PublicKey) {
	theirs, err := e2e.ParsePublicKey(text)
	r.ServerFingerprint = ""
	switch {
	case text == "":
		r.Server = hasNone
	case err != nil:
		r.Server = hasUnusable
	case ours.Equal(theirs):
		r.Server, r.ServerFingerprint = hasSame, theirs.Fingerprint()
	default:
		r.Server, r.ServerFingerprint = hasOther, theirs.Fingerprint()
	}
}

// result prints the report and has the exit code that is wanted.
func (r *keyReport) result(c *cli.Context, text string, code int) error {
	if wantsJSON(c) {
		if err := printJSON(c.App.Writer, r); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(c.App.Writer, printable(text)); err != nil {
		return err
	}
	if code == 0 {
		return nil
	}
	return cli.Exit("", code)
}

// differs says what the server has instead.
func (r *keyReport) differs() string {
	if r.Server == hasUnusable {
		return fmt.Sprintf("The server has a key of %s that cannot be read; yours is %s.", r.Organization, r.Fingerprint)
	}
	return fmt.Sprintf("The server has another key of %s, %s; yours is %s.", r.Organization, r.ServerFingerprint, r.Fingerprint)
}

func keyCheck(c *cli.Context) error {
	return atServer(c, func(_ context.Context, _ *server.V4, _ *server.Identity, _ *e2e.PublicKey, r *keyReport) error {
		switch r.Server {
		case hasSame:
			return r.result(c, fmt.Sprintf("The server has this key of %s, %s.", r.Organization, r.Fingerprint), 0)
		case hasNone:
			return r.result(c, fmt.Sprintf("The server has no key of %s: v6node key upload publishes yours, %s.", r.Organization, r.Fingerprint), exitNoKey)
		}
		return r.result(c, r.differs(), exitKeyDiffers)
	})
}

func keyUpload(c *cli.Context) error {
	return atServer(c, func(ctx context.Context, api *server.V4, id *server.Identity, key *e2e.PublicKey, r *keyReport) error {
		uploaded := false
		r.Uploaded = &uploaded
		switch {
		case r.Server == hasSame:
			return r.result(c, fmt.Sprintf("The server has this key of %s already, %s.", r.Organization, r.Fingerprint), 0)
		case r.Server != hasNone && !c.Bool("replace"):
			return r.result(c, r.differs()+" Nothing was changed: with --replace yours takes its place, and tasks under way for the old one fail.", exitKeyDiffers)
		}
		if err := api.SetOrganizationKey(ctx, id.OrganizationID, key.Base64()); err != nil {
			return fmt.Errorf("publish the key of %s: %w", id.OrganizationName, err)
		}
		now, err := api.OrganizationKey(ctx, id.OrganizationID)
		if err != nil {
			return fmt.Errorf("look whether the key of %s was published: %w", id.OrganizationName, err)
		}
		if theirs, err := e2e.ParsePublicKey(now); err != nil || !key.Equal(theirs) {
			return fmt.Errorf("the server took the key of %s and has another one now: somebody else may have published theirs at the same time; v6node key check says which", id.OrganizationName)
		}
		uploaded = true
		return r.result(c, fmt.Sprintf("Published the key of %s, %s.", r.Organization, r.Fingerprint), 0)
	})
}
