package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/v6node/v6node/internal/backoff"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/keyfile"
	"github.com/v6node/v6node/node/server"
	"github.com/v6node/v6node/proxy/e2e"
)

// ErrEncryption: the node's encryption does not fit its collaboration.
var ErrEncryption = errors.New("encryption setting does not fit")

// connect logs in, waiting for a server that is away, and settles the
// encryption. Only what waiting cannot cure is returned.
func (n *Node) connect(ctx context.Context) error {
	retry := backoff.New(backoff.Server)
	for {
		id, err := n.api.Connect(ctx)
		switch {
		case err == nil:
			n.identity = id
			n.session.login(id)
		case ctx.Err() != nil:
			return ctx.Err()
		default:
			again, wait := server.Retryable(err)
			if !again {
				return fmt.Errorf("connect to the server: %w", err)
			}
			wait = max(wait, retry.Next())
			n.log.WarnContext(ctx, "the server cannot be reached, trying again", "error", err, "wait", wait)
			if err := backoff.Sleep(ctx, wait); err != nil {
				return err
			}
			continue
		}
		break
	}
	id := n.identity
	n.log.InfoContext(ctx, "logged in", "node", id.NodeID, "name", id.NodeName,
		"organization", id.OrganizationName, "collaboration", id.CollaborationName, "encrypted", id.Encrypted)
	if on, err := n.api.BlobStore(ctx); err == nil && on {
		n.log.InfoContext(ctx, "the server keeps inputs and results in a blob store")
	}
	return n.settleEncryption(ctx)
}

func (n *Node) settleEncryption(ctx context.Context) error {
	key, publish, err := FitEncryption(n.cfg.Encryption, n.identity)
	if err != nil {
		return err
	}
	n.key = key
	if !publish {
		return nil
	}
	return n.publishKey(ctx)
}

// FitEncryption holds the encryption of the configuration against that of the
// collaboration. The key is nil where nothing is encrypted; publish says that
// the server has no public key of the organization yet. A different one is not
// replaced silently: results that others encrypted for it would be lost to its
// owner. Errors wrap ErrEncryption.
func FitEncryption(e config.Encryption, id *server.Identity) (key *e2e.PrivateKey, publish bool, err error) {
	if e.Enabled != id.Encrypted {
		is, fix := "is not encrypted", "set encryption.enabled to false"
		if id.Encrypted {
			is, fix = "is encrypted", "set encryption.enabled to true and name your organization's private_key"
		}
		return nil, false, fmt.Errorf("%w: collaboration %q %s at the server and the configuration says otherwise: %s", ErrEncryption, id.CollaborationName, is, fix)
	}
	if !e.Enabled {
		return nil, false, nil
	}
	if key, err = keyfile.Read(e.PrivateKey, e.PassphraseFile); errors.Is(err, e2e.ErrKey) || errors.Is(err, keyfile.ErrPermissions) {
		return nil, false, fmt.Errorf("%w: the private key %s cannot be used: %w", ErrEncryption, e.PrivateKey, err)
	} else if err != nil {
		return nil, false, fmt.Errorf("%w: the private key cannot be read: %w: correct encryption.private_key", ErrEncryption, err)
	}
	if id.OrganizationKey == "" {
		return key, true, nil
	}
	if theirs, err := e2e.ParsePublicKey(id.OrganizationKey); err != nil || !key.Public().Equal(theirs) {
		return nil, false, fmt.Errorf("%w: the private key %s is not the one of organization %q, whose public key the server has: name the organization's key in encryption.private_key, or replace the public key at the server with v6node key upload --replace",
			ErrEncryption, e.PrivateKey, id.OrganizationName)
	}
	return key, false, nil
}

// publishKey tells the server the public key that fits our private key.
func (n *Node) publishKey(ctx context.Context) error {
	if err := n.api.SetOrganizationKey(ctx, n.identity.OrganizationID, n.key.Public().Base64()); err != nil {
		return fmt.Errorf("publish the organization's public key: %w", err)
	}
	n.log.InfoContext(ctx, "published the organization's public key", "organization", n.identity.OrganizationName)
	return nil
}
