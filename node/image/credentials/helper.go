package credentials

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker-credential-helpers/credentials"
)

const (
	helperPrefix = "docker-credential-"
	maxAnswer    = 256 << 10
	// tokenUser says in place of a user name that the secret is an identity token.
	tokenUser = "<token>"
	// reapTime is how long what a helper has left running may hold its output.
	reapTime = 2 * time.Second
)

// helperForm keeps a name from being a path.
var helperForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// LookHelper tells whether a helper's program is there.
func LookHelper(name string) error {
	if !helperForm.MatchString(name) {
		return errors.New("the name of a credential helper must be letters, digits and . _ - only")
	}
	if _, err := exec.LookPath(helperPrefix + name); err != nil {
		return fmt.Errorf("the credential helper %s%s cannot be run (%w): install it where the node's PATH leads", helperPrefix, name, err)
	}
	return nil
}

// ask gets a login from a helper, by the protocol of docker-credential-helpers:
// the registry goes to its standard input, so that nothing is in the arguments,
// and JSON comes out. What it prints reaches no log: it may be the secret.
func (s *Store) ask(ctx context.Context, helper, key string) (Login, bool, error) {
	if err := LookHelper(helper); err != nil {
		return Login{}, false, err
	}
	program := helperPrefix + helper
	limited, cancel := context.WithTimeout(ctx, s.o.HelperTimeout)
	defer cancel()
	out := &capped{left: maxAnswer}
	cmd := exec.CommandContext(limited, program, credentials.ActionGet)
	cmd.Stdin, cmd.Stdout = strings.NewReader(key), out
	cmd.Env = helperEnv(os.Environ())
	// Its children too: many helpers are scripts.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = reapTime
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return Login{}, false, ctx.Err()
	case limited.Err() != nil:
		return Login{}, false, fmt.Errorf("the credential helper %s did not answer within %v: see whether it waits for somebody to type something", program, s.o.HelperTimeout)
	case err != nil && credentials.IsErrCredentialsNotFoundMessage(strings.TrimSpace(out.String())):
		return Login{}, false, nil
	case err != nil:
		return Login{}, false, fmt.Errorf("the credential helper %s failed (%w): as the node's user, run `echo %s | %s get` to see why", program, err, key, program)
	}
	var c credentials.Credentials
	if out.left < 0 || json.Unmarshal(out.Bytes(), &c) != nil {
		return Login{}, false, fmt.Errorf("the credential helper %s did not answer with the JSON of a login", program)
	}
	l := Login{Registry: Normalize(key), Username: c.Username, Password: c.Secret}
	if c.Username == tokenUser {
		l.Username, l.Password, l.IdentityToken = "", "", c.Secret
	}
	return l, !l.empty(), nil
}

// helperEnv leaves out the node's own variables, which may be secrets.
func helperEnv(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(v string) bool { return strings.HasPrefix(v, "V6NODE_") })
}

// capped is a buffer that takes so much and no more.
type capped struct {
	bytes.Buffer
	left int
}

func (c *capped) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		return 0, errors.New("the answer is too long")
	}
	return c.Buffer.Write(p)
}
