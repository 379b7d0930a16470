package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/node/boot"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/node/limits"
	"github.com/v6node/v6node/node/policy"
)

func policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "find out what the policies of a configuration say",
		Subcommands: []*cli.Command{{
			Name:  "test",
			Usage: "explain what the node would say to a run",
			Description: `Asks the policies of a configuration about a run, as the node would, and says which of
them says yes or no and why. No node needs to run, and no server is asked. Registries are
asked which digest the image has, unless it is in --image or --digest.

Exit codes: 0 the run would be allowed, 15 it would be refused, 16 it would wait for
v6node approve, or only the digest, which could not be found, tells.

Examples:
   v6node policy test --config node.yaml --image ghcr.io/org/average:1.4 --organization 6
   v6node policy test --config node.yaml --image ghcr.io/org/average@sha256:... \
      --organization 6 --organization Maastro --user 12 --database patients --function central
   v6node policy test --config node.yaml --image sif:average --offline -o json`,
			OnUsageError:    usageError,
			HideHelpCommand: true,
			Flags: []cli.Flag{
				configFlag("read the configuration from `FILE`"),
				&cli.StringFlag{Name: "image", Usage: "the task names `IMAGE`"},
				&cli.StringFlag{Name: "digest", Usage: "the image has the `DIGEST` sha256:..., without asking its registry"},
				&cli.BoolFlag{Name: "offline", Usage: "ask no registry"},
				&cli.StringSliceFlag{Name: "organization", Usage: "`ID` or name of the organization that sent the task; give both where rules have both"},
				&cli.Int64Flag{Name: "user", Usage: "`ID` of the user who sent the task"},
				&cli.StringSliceFlag{Name: "database", Usage: "`LABEL` of a database that the task asks for; may be repeated"},
				&cli.StringFlag{Name: "function", Usage: "the task calls the method `NAME`"},
				&cli.StringFlag{Name: "store", Usage: "the task comes from the algorithm store at `ADDRESS`"},
				outputFlag(asTable),
			},
			Action: policyTest,
		}},
	}
}

// Decisions of policy test.
const (
	wouldAllow  = "allowed"
	wouldRefuse = "refused"
	wouldWait   = "approval"
	wouldDepend = "undecided"
)

// policyReport is what policy test prints as JSON.
type policyReport struct {
	Decision string       `json:"decision"`
	Reason   string       `json:"reason"`
	Image    string       `json:"image"`
	Digest   string       `json:"digest,omitempty"`
	Problem  string       `json:"problem,omitempty"` // why the digest is not known
	Steps    []policyStep `json:"steps"`
	// Limits are where the limits of such a run come from beside limits.
	Limits []string `json:"limits"`
}

type policyStep struct {
	Rule    string `json:"rule"`
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

func policyTest(c *cli.Context) (err error) {
	if err := wantArgs(c, 0, 0); err != nil {
		return err
	}
	if c.String("image") == "" {
		return cli.Exit("no image is named: name with --image the one that the task asks for", exitUsage)
	}
	q, err := policyQuestion(c)
	if err != nil {
		return err
	}
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	p, err := policy.New(cfg.Policies)
	if err != nil {
		return err
	}
	r := policyReport{Image: q.Image, Steps: []policyStep{}, Limits: []string{}}
	resolver := boot.RegistryResolver(cfg, c.App.Version)
	defer func() {
		if closed := resolver.Close(); err == nil {
			err = closed
		}
	}()
	source := &image.Imports{Images: boot.Imported(cfg), Others: resolver}
	if c.Bool("offline") {
		source.Others = offline{}
	}
	q.DigestOf = func(image string) (string, error) {
		found, err := source.Resolve(c.Context, image)
		return found.Digest, err
	}
	if err := digestFor(q); err != nil {
		r.Problem = err.Error()
	}
	r.Digest = q.Digest
	decide := p.Explain
	if q.Digest == "" {
		decide = p.ExplainPossible
	}
	d, steps := decide(*q)
	unsure := false
	if d.Allowed && q.Digest != "" && len(cfg.Policies.SigningKeys) > 0 {
		signed, known, err := policySignature(c, cfg, source, q)
		if err != nil {
			return err
		}
		steps = append(steps, signed)
		if !known {
			unsure = true
		} else if !signed.Allowed {
			d = policy.Decision{Reason: signed.Reason}
		}
	}
	for _, s := range steps {
		r.Steps = append(r.Steps, policyStep(s))
	}
	r.Reason, r.Decision = d.Reason, wouldAllow
	switch {
	case !d.Allowed:
		r.Decision = wouldRefuse
	case d.Manual:
		r.Decision = wouldWait
	case q.Digest == "" || unsure:
		r.Decision = wouldDepend
	}
	if d.Allowed {
		r.limits(cfg, q)
	}
	if err := r.print(c); err != nil {
		return err
	}
	switch r.Decision {
	case wouldAllow:
		return nil
	case wouldRefuse:
		return cli.Exit("", exitNotAllowed)
	}
	return cli.Exit("", exitUndecided)
}

// policyQuestion is the run that the command line describes.
func policyQuestion(c *cli.Context) (*policy.Request, error) {
	q := &policy.Request{
		Image: c.String("image"), Digest: c.String("digest"), UserID: c.Int64("user"),
		Databases: c.StringSlice("database"), Function: c.String("function"),
	}
	if _, err := imageref.Parse(q.Image); err != nil {
		return nil, cli.Exit(fmt.Sprintf("--image: %v", err), exitUsage)
	}
	if q.Digest != "" && !imageref.IsDigest(q.Digest) {
		return nil, cli.Exit(fmt.Sprintf("--digest: %q is not sha256: and 64 hexadecimal digits", q.Digest), exitUsage)
	}
	if q.UserID < 0 {
		return nil, cli.Exit("--user is the id of a user", exitUsage)
	}
	name := ""
	for _, o := range c.StringSlice("organization") {
		id, err := strconv.ParseInt(o, 10, 64)
		switch {
		case err != nil && name != "", err == nil && q.OrganizationID != 0:
			return nil, cli.Exit("--organization is one organization: its id, its name, or both", exitUsage)
		case err != nil:
			name = o
		default:
			q.OrganizationID = id
		}
	}
	if name != "" && q.OrganizationID == 0 {
		q.OrganizationID = -1 // there is one, whatever its id
	}
	q.OrganizationName = func() (string, error) {
		if name == "" {
			return "", errors.New("its name was not given: add --organization NAME")
		}
		return name, nil
	}
	if store := c.String("store"); store != "" {
		q.StoreID, q.StoreAddresses = -1, func() ([]string, error) { return []string{store}, nil }
	}
	return q, nil
}

// offline is a source that knows nothing.
type offline struct{}

var errOffline = errors.New("no registry is asked (--offline)")

func (offline) Resolve(context.Context, string) (image.Resolved, error) {
	return image.Resolved{}, errOffline
}

func (offline) Provide(context.Context, image.Resolved, image.Provision) (*image.Provided, error) {
	return nil, errOffline
}

// policySignature looks whether the image is signed. It is not known where no registry may be asked.
func policySignature(c *cli.Context, cfg *config.Config, source image.Signatures, q *policy.Request) (s policy.Step, known bool, err error) {
	s.Rule = "signatures"
	keys, err := image.LoadSigningKeys(cfg.Policies.SigningKeys)
	if err != nil {
		return s, false, fmt.Errorf("%w: %w", config.ErrInvalid, err)
	}
	ref, err := imageref.Parse(q.Image)
	if err != nil {
		return s, false, err
	}
	switch {
	case ref.Scheme != imageref.Container:
		s.Allowed, s.Reason = cfg.SIF.RequireSignature, "sif.require_signature decides on SIF images."
		return s, true, nil
	case c.Bool("offline"):
		s.Allowed, s.Reason = true, "Not looked at: no registry is asked (--offline)."
		return s, false, nil
	}
	signer, err := source.Signed(c.Context, image.Resolved{Reference: q.Image, Digest: q.Digest, Pinned: ref.Pin(q.Digest)}, keys)
	switch {
	case errors.Is(err, image.ErrSignature):
		s.Reason = err.Error()
		return s, true, nil
	case err != nil:
		s.Allowed, s.Reason = true, "Not known: "+err.Error()
		return s, false, nil
	}
	s.Allowed, s.Reason = true, "The image is signed with "+signer+"."
	return s, true, nil
}

// digestFor finds out what the image is, if that was not given. The error says why it could not.
func digestFor(q *policy.Request) (err error) {
	ref, err := imageref.Parse(q.Image)
	if err != nil {
		return err
	}
	switch {
	case ref.Scheme == imageref.ORAS:
		q.Digest = "" // without that of its file nothing is certain
		return errors.New("only the node itself finds the file of an oras:// image")
	case q.Digest != "":
		return nil
	case ref.Digest != "":
		q.Digest = ref.Digest
		return nil
	case ref.Scheme == imageref.SIF:
		return errors.New("only the node itself finds SIF images: give the digest with --digest")
	}
	q.Digest, err = q.DigestOf(q.Image)
	return err
}

// limits notes which rules change the limits of the run.
func (r *policyReport) limits(cfg *config.Config, q *policy.Request) {
	set := limits.Set{Default: cfg.Limits, Rules: cfg.LimitRules}
	_, matched, err := set.Resolve(limits.Request{
		Image: q.Image, UserID: q.UserID, OrganizationID: q.OrganizationID, OrganizationName: q.OrganizationName,
		Digest:   func() (string, string, error) { return q.Digest, q.File, nil },
		DigestOf: q.DigestOf,
	})
	if err != nil {
		r.Limits = append(r.Limits, err.Error())
		return
	}
	for _, i := range matched {
		r.Limits = append(r.Limits, cfg.LimitRules[i].Path(i))
	}
}

func (r *policyReport) print(c *cli.Context) error {
	if wantsJSON(c) {
		return printJSON(c.App.Writer, r)
	}
	says := map[string]string{
		wouldAllow: "allowed", wouldRefuse: "refused", wouldWait: "waits for v6node approve", wouldDepend: "depends on what could not be looked up",
	}
	fmt.Fprintf(c.App.Writer, "%s: %s\n", printable(r.Image), says[r.Decision])
	if r.Digest != "" {
		fmt.Fprintf(c.App.Writer, "digest: %s\n", printable(r.Digest))
	}
	if r.Problem != "" {
		fmt.Fprintf(c.App.Writer, "digest: not known: %s\n", printable(r.Problem))
	}
	fmt.Fprintln(c.App.Writer)
	t := newTable(c.App.Writer, "RULE", "SAYS", "WHY")
	for _, s := range r.Steps {
		t.row(s.Rule, yesNo(s.Allowed), s.Reason)
	}
	for _, l := range r.Limits {
		t.row("limits", "-", l)
	}
	return t.print()
}
