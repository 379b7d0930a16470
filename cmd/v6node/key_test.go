package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/node/keyfile"
)

// keyed runs a key command that prints JSON.
func keyed(t *testing.T, wantCode int, args ...string) keyReport {
	t.Helper()
	out, errOut, code := v6node(t, t.Context(), append(append([]string{"key"}, args...), "-o", "json")...)
	var r keyReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != wantCode {
		t.Fatalf("key %q: exit code %d, want %d, %v\n%s%s", args, code, wantCode, err, out, errOut)
	}
	return r
}

func TestKeysAreMadeAndShown(t *testing.T) {
	dir := t.TempDir()
	file, secret := filepath.Join(dir, "key.pem"), filepath.Join(dir, "passphrase")
	made := keyed(t, 0, "create", file, "--bits", "2048")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 || made.Bits != 2048 || *made.Protected {
		t.Errorf("%+v, %v", made, err)
	}
	if shown := keyed(t, 0, "show", file); shown.Fingerprint != made.Fingerprint || shown.PublicKey != made.PublicKey || !strings.HasPrefix(shown.Fingerprint, "SHA256:") {
		t.Errorf("made %+v, and it is %+v", made, shown)
	}
	if out, _, code := v6node(t, t.Context(), "key", "show", file); code != 0 || !strings.Contains(out, made.Fingerprint) || strings.Contains(out, "PRIVATE") {
		t.Errorf("%d, %s", code, out)
	}
	if _, errOut, code := v6node(t, t.Context(), "key", "create", file, "--bits", "2048"); code != exitFailure || !strings.Contains(errOut, "exists already") {
		t.Errorf("made again: %d, %s", code, errOut)
	}
	if err := os.WriteFile(secret, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(dir, "locked.pem")
	if r := keyed(t, 0, "create", "--bits", "2048", "--passphrase-file", secret, locked); !*r.Protected {
		t.Errorf("%+v", r)
	}
	if _, errOut, code := v6node(t, t.Context(), "key", "show", locked); code != exitEncryption || !strings.Contains(errOut, keyfile.PassphraseVariable) {
		t.Errorf("without its passphrase: %d, %s", code, errOut)
	}
	keyed(t, 0, "show", locked, "--passphrase-file", secret)
	t.Setenv(keyfile.PassphraseVariable, "battery staple")
	if _, errOut, code := v6node(t, t.Context(), "key", "show", locked); code != exitEncryption || strings.Contains(errOut, "battery") {
		t.Errorf("with another passphrase: %d, %s", code, errOut)
	}
	t.Setenv(keyfile.PassphraseVariable, "")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]int{
		"show " + file: exitEncryption, "show " + file + ".x": exitEncryption, "show": exitUsage, "create": exitUsage, "create a b": exitUsage,
		"create --bits 512 " + file + ".y": exitUsage, "create " + file + ".z --passphrase-file /nowhere": exitFailure, "check": exitUsage, "check --config /nowhere": exitUsage,
	} {
		if _, errOut, code := v6node(t, t.Context(), append([]string{"key"}, strings.Fields(args)...)...); code != want || errOut == "" {
			t.Errorf("key %s: exit code %d, %s", args, code, errOut)
		}
	}
	if left, err := filepath.Glob(file + ".*"); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestKeysAreComparedAndPublished(t *testing.T) {
	srv, err := standin.New(standin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	org := srv.AddOrganization("Maastro")
	apiKey := srv.AddNode(org, srv.AddCollaboration("study", true, org))
	configured := func(key string) string {
		return writeConfig(t, fmt.Sprintf("server_url: http://127.0.0.1\nport: %d\napi_path: %s\napi_key: %s\nencryption: {enabled: true, private_key: %s}\n", srv.Port(), srv.APIPath(), apiKey, key))
	}
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.pem"), filepath.Join(dir, "second.pem")
	one, two := keyed(t, 0, "create", first, "--bits", "2048"), keyed(t, 0, "create", second, "--bits", "2048")
	a, b := configured(first), configured(second)

	if r := keyed(t, exitNoKey, "check", "--config", a); r.Server != hasNone || r.Organization != "Maastro" {
		t.Errorf("%+v", r)
	}
	if r := keyed(t, 0, "upload", "--config", a); !*r.Uploaded || srv.PublicKey(org) != one.PublicKey {
		t.Errorf("%+v", r)
	}
	if r := keyed(t, 0, "check", "--config", a); r.Server != hasSame || r.ServerFingerprint != one.Fingerprint {
		t.Errorf("%+v", r)
	}
	if r := keyed(t, 0, "upload", "--config", a); *r.Uploaded {
		t.Errorf("published twice: %+v", r)
	}
	if r := keyed(t, exitKeyDiffers, "check", "--config", b); r.Server != hasOther || r.ServerFingerprint != one.Fingerprint || r.Fingerprint != two.Fingerprint {
		t.Errorf("%+v", r)
	}
	if r := keyed(t, exitKeyDiffers, "upload", "--config", b); *r.Uploaded || srv.PublicKey(org) != one.PublicKey {
		t.Errorf("replaced without being told to: %+v", r)
	}
	if out, _, code := v6node(t, t.Context(), "key", "upload", "--config", b, "--replace"); code != 0 || !strings.Contains(out, two.Fingerprint) || srv.PublicKey(org) != two.PublicKey {
		t.Errorf("%d, %s", code, out)
	}
	srv.SetPublicKey(org, "bm90IGEga2V5")
	if r := keyed(t, exitKeyDiffers, "upload", "--config", b); r.Server != hasUnusable {
		t.Errorf("%+v", r)
	}
	if out, _, code := v6node(t, t.Context(), "key", "check", "--config", b); code != exitKeyDiffers || !strings.Contains(out, "cannot be read") {
		t.Errorf("%d, %s", code, out)
	}
	open := writeConfig(t, fmt.Sprintf("server_url: http://127.0.0.1\nport: %d\napi_path: %s\napi_key: %s\n", srv.Port(), srv.APIPath(), apiKey))
	if _, errOut, code := v6node(t, t.Context(), "key", "check", "--config", open); code != exitEncryption {
		t.Errorf("without a key: %d, %s", code, errOut)
	}
}
