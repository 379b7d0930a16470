//go:build integration

package integration

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

func registryScenarios() []scenario {
	return []scenario{
		{"images, signatures and SIF files come from a mirror with a private authority and a credential helper", behindAMirror},
		{"the logins of docker and podman are used for look-ups and pulls, from a registry with a private authority", storedLogins},
	}
}

// private makes a certificate authority, and what a server needs that it vouches for.
func private(t *testing.T) (authority []byte, secured *tls.Config) {
	t.Helper()
	ca, err := imagekit.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	if secured, err = ca.Server(false); err != nil {
		t.Fatal(err)
	}
	return ca.PEM, secured
}

// put writes a file that the world's nodes can read, whoever runs them.
func (w *world) put(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), mode)
	}
	if err == nil && w.user != nil {
		err = w.user.own(filepath.Dir(path))
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// certsDir is a directory of mirrors and certificates that the runtime reads too.
func (w *world) certsDir(t *testing.T) string {
	t.Helper()
	if w.external != nil && w.kind != crioKind { // which has mirrors and certificates in files of other formats, of the whole machine
		return w.external.certsDir()
	}
	return w.place(t)
}

// behindAMirror: nobody answers for the registry itself. What its mirror has runs all
// the same, and what the mirror does not have does not.
func behindAMirror(t *testing.T, w *world) {
	const user, password = "reader", "open-sesame"
	authority, secured := private(t)
	mirror := w.registry(t, imagekit.RegistryOptions{Username: user, Password: password, Token: true, TLS: secured, Referrers: true})
	ref := w.pack(t, mirror, "suite/algo", "mirrored")
	unsigned := w.pack(t, mirror, "suite/unsigned", "unsigned")
	key, public, err := imagekit.SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := imagekit.Sign(key, ref.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mirror.Push("suite/algo", strings.Replace(ref.Digest, ":", "-", 1)+".sig", signature); err != nil {
		t.Fatal(err)
	}
	bundled := w.pack(t, mirror, "suite/bundled", "bundled")
	bundle, err := imagekit.Bundle(key, bundled.Digest, imagekit.SignPredicate)
	if err != nil {
		t.Fatal(err)
	}
	referrer, err := imagekit.Referrer(bundled.Digest, imagekit.SignPredicate, bundle)
	if err == nil {
		err = mirror.PushReferrers("suite/bundled", bundled.Digest, referrer)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := w.sif(t, t.TempDir(), "algo", fmt.Sprintf("mirrored SIF %d", w.number()), false)
	artifact(t, mirror, "group/algo", f)

	place, certs := w.place(t), w.certsDir(t)
	registry := fmt.Sprintf("r%d.invalid", w.number())
	w.put(t, filepath.Join(certs, registry, "ca.pem"), string(authority), 0o644)
	w.put(t, filepath.Join(certs, registry, "hosts.toml"), fmt.Sprintf("server = \"https://%s\"\n\n[host.\"https://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"ca.pem\"\n", registry, mirror.Host()), 0o644)
	helper := w.put(t, filepath.Join(place, "bin", "docker-credential-suite"), fmt.Sprintf("#!/bin/sh\nread server\necho \"$1 $server\" >> %q\n[ \"$server\" = %s ] || { echo 'credentials not found in native keychain'; exit 1; }\necho '{\"Username\":%q,\"Secret\":%q}'\n",
		filepath.Join(place, "bin", "asked"), mirror.Host(), user, password), 0o755)
	logins := w.put(t, filepath.Join(place, "auth.json"), `{"credsStore":"suite"}`, 0o600)
	pub := w.put(t, filepath.Join(place, "cosign.pub"), string(public), 0o644)
	extra := map[string]any{"registries": map[string]any{"auth_files": logins, "host_logins": false, "certs_dirs": certs}}
	env := []string{"PATH=" + filepath.Dir(helper) + ":" + os.Getenv("PATH")}

	plain := w.start(t, nodeOptions{Extra: extra, Env: env})
	if got := plain.mark(t, "oras://"+registry+"/group/algo:v1"); !strings.HasPrefix(got, "mirrored SIF") {
		t.Errorf("the image with the mark %q ran", got)
	}
	if w.kind == crioKind {
		// The node knows the mirror, and CRI-O not yet.
		done := plain.call(t, "env", nil, image(registry+"/suite/unsigned:latest"))
		plain.failed(t, done, standin.StatusNoImage, registry+"/suite/unsigned", "docs/registries.md")
		probe := w.pack(t, mirror, "suite/probe", "probe")
		w.external.crioMirror(t, registry, mirror.Host(), authority, user, password, registry+"/suite/probe@"+probe.Digest)
	}
	if got := plain.mark(t, registry+"/suite/unsigned:latest"); got != "unsigned" {
		t.Errorf("the image with the mark %q ran", got)
	}
	done := plain.call(t, "env", nil, image(registry+"/suite/missing:latest"))
	plain.failed(t, done, standin.StatusNoImage, registry+"/suite/missing", "the mirror "+mirror.Host())
	if strings.Contains(plain.Log(1<<20), password) {
		t.Error("the log has the password")
	}
	asked, err := os.ReadFile(filepath.Join(place, "bin", "asked"))
	if err != nil || !strings.Contains(string(asked), "get "+mirror.Host()+"\n") || strings.Contains(string(asked), password) {
		t.Errorf("the helper was asked for %q, %v", asked, err)
	}

	extra["policies"] = map[string]any{"signatures": map[string]any{"keys": pub}}
	strict := w.start(t, nodeOptions{Extra: extra, Env: env})
	for name, want := range map[string]string{"algo": "mirrored", "bundled": "bundled"} {
		if got := strict.mark(t, registry+"/suite/"+name+":latest"); got != want {
			t.Errorf("the image with the mark %q ran", got)
		}
	}
	// That nobody else has a signature cannot be known without the registry.
	if done := strict.call(t, "env", nil, image(registry+"/suite/unsigned@"+unsigned.Digest)); done.Status == standin.StatusCompleted {
		t.Error("an image without a signature ran")
	}
}

func storedLogins(t *testing.T, w *world) {
	const user, password = "reader", "open-sesame"
	authority, secured := private(t)
	if w.kind == crioKind || w.kind == debianKind { // containerd 1.6 speaks HTTP to loopback
		secured = nil
	}
	registry := w.registry(t, imagekit.RegistryOptions{Username: user, Password: password, TLS: secured})
	ref := w.pack(t, registry, "suite/algo", "logged in")
	certs := w.certsDir(t)
	if secured != nil {
		w.put(t, filepath.Join(certs, registry.Host(), "ca.crt"), string(authority), 0o644)
	}
	entry := func(key, password string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	place := w.place(t)
	w.put(t, filepath.Join(place, "docker", "config.json"), entry(registry.Host(), "another password"), 0o600)
	podman := w.put(t, filepath.Join(place, "podman", "auth.json"), entry(registry.Host()+"/suite", password), 0o600)
	n := w.start(t, nodeOptions{Extra: map[string]any{"registries": map[string]any{"certs_dirs": certs}}, Env: []string{"DOCKER_CONFIG=" + filepath.Join(place, "docker"), "REGISTRY_AUTH_FILE=" + podman}})
	if got := n.mark(t, ref.Tag); got != "logged in" {
		t.Errorf("the image with the mark %q ran", got)
	}
	// Who logs out need not tell the node.
	w.put(t, podman, "{}", 0o600)
	other := w.pack(t, registry, "suite/other", "other")
	n.failed(t, n.call(t, "env", nil, image(other.Tag)), standin.StatusNoImage, other.Tag, "401")
	w.put(t, podman, "{", 0o600)
	if done := n.call(t, "env", nil, image(other.Tag)); done.Status != standin.StatusNoImage || !strings.Contains(done.Text, podman) {
		t.Errorf("with a broken file: %q, %q", done.Status, done.Text)
	}
	w.put(t, podman, entry(registry.Host(), password), 0o600)
	if got := n.mark(t, other.Tag); got != "other" {
		t.Errorf("the image with the mark %q ran", got)
	}
	if strings.Contains(n.Log(1<<20), password) {
		t.Error("the log has the password")
	}
}
