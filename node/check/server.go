package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/v6node/v6node/node"
	"github.com/v6node/v6node/node/server"
)

// Differences of the clocks of server and node that matter: to whoever compares
// times of runs, and to certificates and tokens.
const (
	clockWarn = 10 * time.Second
	clockFail = 5 * time.Minute
)

// server looks whether the node could log in and work for its collaboration. It
// opens no event socket, which would mark a node that runs as offline afterwards.
func (o Options) server(ctx context.Context, report func(Result)) error {
	r := reporter(report)
	s := o.Config.Server
	api, err := server.NewV4(server.Config{URL: s.URL, Port: s.Port, APIPath: s.APIPath, CAFile: s.CAFile, APIKey: o.Config.APIKey.Reveal(), Version: o.Version})
	if err != nil {
		what, fix := cutAt(err.Error(), ": ")
		r.fail("", fix, "%s", what)
		return nil
	}
	defer api.Close()
	by := ""
	switch proxy, err := api.Proxy(); {
	case err != nil:
		r.fail("proxy", "correct HTTPS_PROXY, HTTP_PROXY and NO_PROXY in the environment of v6node", "the proxy of the environment cannot be used: %v", err)
		return nil
	case proxy != nil:
		by = " through the proxy " + proxy.String()
	}
	greeting, err := api.Greet(ctx)
	clock(r, greeting)
	if err != nil {
		r.fail("", unanswered(err, by != ""), "%s%s: %v", s.Base(), by, err)
		return nil
	}
	r.ok("", "%s%s answers", s.Base(), by)
	switch {
	case greeting.Version == "":
		r.skip("version", "the server does not tell")
	case !strings.HasPrefix(greeting.Version, "4."):
		r.fail("version", "use a server of version 4, or the v6node that is made for this one", "the server has version %s, and this v6node speaks to version 4", greeting.Version)
	default:
		r.ok("version", "%s", greeting.Version)
	}
	id, err := api.Connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fix := unanswered(err, by != "")
		if errors.Is(err, server.ErrBadAPIKey) {
			fix = "set api_key (or the file named by api_key_file) to the key that the server gave for this node; a lost one is replaced at the server"
		}
		r.fail("API key", fix, "%v", err)
		return nil
	}
	r.ok("API key", "node %d (%s) of %s in %s", id.NodeID, id.NodeName, id.OrganizationName, id.CollaborationName)
	o.encryption(r, id)
	switch on, err := api.BlobStore(ctx); {
	case err != nil:
		r.warn("blob store", "look again when the server is well", "the server does not tell whether it has one: %v", err)
	case on:
		r.ok("blob store", "the server keeps inputs and results in one")
	default:
		r.skip("blob store", "the server has none, and keeps inputs and results in its database")
	}
	return nil
}

func clock(r reporter, g server.Greeting) {
	if !g.KnowsTime {
		return
	}
	off := g.Ahead.Abs().Round(time.Second)
	side := "behind"
	if g.Ahead < 0 {
		side = "ahead of"
	}
	const fix = "let the machine keep its time: timedatectl set-ntp true (or chronyd); if this machine is right, tell the server's administrator"
	switch {
	case off >= clockFail:
		r.fail("clock", fix, "this machine is %s %s the server: certificates and tokens may count as expired", off, side)
	case off >= clockWarn:
		r.warn("clock", fix, "this machine is %s %s the server, and times of runs are this machine's", off, side)
	default:
		r.ok("clock", "as the server's")
	}
}

// Unanswered is what to do about a server that could not be asked.
func Unanswered(err error) string { return unanswered(err, false) }

// unanswered is what to do about a server that could not be asked.
func unanswered(err error, proxied bool) string {
	var unknown x509.UnknownAuthorityError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var dns *net.DNSError
	switch {
	case errors.As(err, &unknown):
		return "name the certificate of the authority that signed the server's in ca_file"
	case errors.As(err, &cert):
		return "write the name that the certificate is for in server_url, or have the certificate renewed"
	case errors.As(err, &record):
		return "write http:// instead of https:// in server_url, or correct port: the server there does not speak TLS"
	case errors.As(err, &dns):
		return fmt.Sprintf("correct server_url, or the machine's name resolution: `getent hosts %s` must find it", dns.Name)
	case errors.Is(err, server.ErrNotAPI):
		return "correct server_url, port and api_path: something else answers there"
	case proxied:
		return "correct HTTPS_PROXY or HTTP_PROXY in the environment of v6node, or name the server in NO_PROXY"
	case errors.Is(err, server.ErrUnreachable):
		return "correct server_url and port, have the firewall let this machine out to it, or set HTTPS_PROXY in the environment of v6node"
	}
	return "try again later, or ask the server's administrator"
}

// encryption holds the key against the server's of the organization.
func (o Options) encryption(r reporter, id *server.Identity) {
	const name = "encryption"
	e := o.Config.Encryption
	key, publish, err := node.FitEncryption(e, id)
	if err != nil {
		what, fix := cutAt(err.Error(), ": ")
		r.fail(name, fix, "%s", what)
		return
	}
	switch {
	case key == nil:
		r.ok(name, "none: the collaboration is not encrypted")
	case publish:
		r.ok(name, "the server has no public key of the organization; the node publishes that of %s at its start", e.PrivateKey)
	default:
		r.ok(name, "the private key is the organization's")
	}
	if key == nil {
		return
	}
	if info, err := os.Stat(e.PrivateKey); err == nil && info.Mode().Perm()&0o077 != 0 {
		r.warn("private key", "chmod 600 "+e.PrivateKey, "others than its owner may read %s (mode %04o)", e.PrivateKey, info.Mode().Perm())
	}
}
