package node

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/v6node/v6node/internal/backoff"
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
	return n.settleEncryption(ctx)
}

func (n *Node) settleEncryption(ctx context.Context) error {
	want := n.cfg.Encryption.Enabled
	if want != n.identity.Encrypted {
		is, fix := "is not encrypted", "set encryption.enabled to false"
		if n.identity.Encrypted {
			is, fix = "is encrypted", "set encryption.enabled to true and name your organization's private_key"
		}
		return fmt.Errorf("%w: collaboration %q %s at the server and the configuration says otherwise: %s", ErrEncryption, n.identity.CollaborationName, is, fix)
	}
	if !want {
		return nil
	}
	pem, err := os.ReadFile(n.cfg.Encryption.PrivateKey)
	if err != nil {
		return fmt.Errorf("%w: the private key cannot be read: %w: correct encryption.private_key", ErrEncryption, err)
	}
	key, err := e2e.ParsePrivateKey(pem)
	if err != nil {
		return fmt.Errorf("%w: the private key %s cannot be used: %w", ErrEncryption, n.cfg.Encryption.PrivateKey, err)
	}
	n.key = key
	return n.publishKey(ctx)
}

// publishKey makes the server's public key of our organization the one that
// fits our private key, where it has none. A different one is not replaced
// silently: results that others encrypted for it would be lost to its owner.
func (n *Node) publishKey(ctx context.Context) error {
	ours := n.key.Public()
	if n.identity.OrganizationKey != "" {
		theirs, err := e2e.ParsePublicKey(n.identity.OrganizationKey)
		if err == nil && ours.Equal(theirs) {
			return nil
		}
		return fmt.Errorf("%w: the private key %s is not the one of organization %q, whose public key the server has: name the organization's key in encryption.private_key, or have the organization's public key replaced at the server",
			ErrEncryption, n.cfg.Encryption.PrivateKey, n.identity.OrganizationName)
	}
	if err := n.api.SetOrganizationKey(ctx, n.identity.OrganizationID, ours.Base64()); err != nil {
		return fmt.Errorf("publish the organization's public key: %w", err)
	}
	n.log.InfoContext(ctx, "published the organization's public key", "organization", n.identity.OrganizationName)
	return nil
}
