//go:build integration

package integration

import (
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.yaml.in/yaml/v3"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
	"github.com/v6node/v6node/node/admin"
)

// approvalScenarios are about runs that wait for the administrator, and about
// what he changes while the node runs.
func approvalScenarios() []scenario {
	return []scenario{
		{"a run waits for approval, also over a kill of the node, and for the image that was approved", approvedRun},
		{"a denied run never runs and its sender reads why", deniedRun},
		{"a rule gives databases and functions to some runs only", boundRuns},
		{"only images run that a trusted key has signed", signedImages},
		{"a reload changes what begins and not what runs", reloaded},
		{"a key with a passphrase is published and used", protectedKey},
	}
}

var askAdministrator = map[string]any{"rules": []any{map[string]any{"approve": "manual"}}}

// waits waits until a run waits for approval of an image.
func (n *node) waits(t *testing.T, run int64, pinned string) {
	t.Helper()
	eventually(t, func() error {
		held := show[[]admin.Run](t, n, "ps", "--filter", "status=held", "--filter", fmt.Sprintf("id=%d", run))
		if len(held) != 1 || held[0].Approval == nil || held[0].Approval.Pinned != pinned || held[0].Approval.Answer != "" {
			return fmt.Errorf("ps shows %+v, wanted run %d to wait for %s", held, run, pinned)
		}
		return nil
	})
}

// onRecord are the entries of the node's audit log about a run, or with 0 about any.
func (n *node) onRecord(t *testing.T, event string, run int64) []map[string]any {
	t.Helper()
	args := []string{"audit", "export", "--state-dir", n.StateDir, "--filter", "event=" + event}
	if run > 0 {
		args = append(args, "--filter", fmt.Sprintf("run=%d", run))
	}
	out, errOut, err := n.w.v6node(t, args...)
	if err != nil {
		t.Fatalf("%v: %s", err, errOut)
	}
	var entries []map[string]any
	for line := range strings.Lines(out) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		entries = append(entries, e)
	}
	return entries
}

func approvedRun(t *testing.T, w *world) {
	registry := w.registry(t, imagekit.RegistryOptions{})
	first := w.pack(t, registry, "suite/approved", "first")
	n := w.start(t, nodeOptions{Extra: map[string]any{"policies": askAdministrator}})
	task, run := n.post(t, "env", nil, image(first.Tag))
	n.waits(t, run, first.Pinned)
	if q := show[[]admin.Waiting](t, n, "queue"); len(q) != 1 || q[0].Run != run || !strings.Contains(q[0].Reason, "v6node approve") {
		t.Errorf("queue shows %+v", q)
	}
	n.Kill()
	n.restart(t)
	n.waits(t, run, first.Pinned)
	if list := n.sandboxes(t, run); len(list) != 0 {
		t.Errorf("it has sandboxes before it is approved: %+v", list)
	}
	// The tag moves while the approved run waits for room.
	n.command(t, "pause")
	n.command(t, "approve", fmt.Sprint(run))
	n.queued(t, 1)
	second := w.pack(t, registry, "suite/approved", "second")
	n.Kill()
	n.restart(t)
	n.command(t, "resume")
	n.waits(t, run, second.Pinned)
	n.command(t, "approve", fmt.Sprint(run))
	if got := completed[environment](t, n.finish(t, task)).Raw["IMAGE_MARK"]; got != "second" {
		t.Errorf("the image %q ran", got)
	}
	words := n.onRecord(t, "approved", run)
	if len(words) != 2 || words[0]["pinned"] != first.Pinned || words[1]["pinned"] != second.Pinned || !strings.Contains(fmt.Sprint(words[1]["actor"]), fmt.Sprint(os.Getuid())) {
		t.Errorf("on record is %v", words)
	}
	n.gone(t, run)
	if _, errOut, err := w.v6node(t, "approve", fmt.Sprint(run), "--state-dir", n.StateDir); err == nil || !strings.Contains(errOut, "does not wait for approval") {
		t.Errorf("approved once more: %v, %s", err, errOut)
	}
}

func deniedRun(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{Extra: map[string]any{"policies": askAdministrator}})
	task, run := n.post(t, "env", nil)
	n.waits(t, run, w.testalgo.Pinned)
	other, killed := n.post(t, "env", nil)
	n.waits(t, killed, w.testalgo.Pinned)
	n.command(t, "deny", fmt.Sprint(run), "--reason", "the committee has not agreed")
	done := n.finish(t, task)
	if done.Status != standin.StatusNotAllowed || done.Data != nil || !strings.Contains(done.Text, "has denied this run: the committee has not agreed") {
		t.Errorf("%q, %q", done.Status, done.Text)
	}
	if words := n.onRecord(t, "denied", run); len(words) != 1 || words[0]["reason"] != "the committee has not agreed" || words[0]["actor"] == nil {
		t.Errorf("on record is %v", words)
	}
	n.command(t, "kill", fmt.Sprint(killed))
	if done := n.finish(t, other); done.Status != standin.StatusKilled {
		t.Errorf("killed while it waited, it ended as %q", done.Status)
	}
	n.gone(t, run)
	n.gone(t, killed)
}

func boundRuns(t *testing.T, w *world) {
	store := w.server.AddStore("suite", "https://store.example.org")
	n := w.start(t, nodeOptions{
		Databases: map[string]string{"default": patients, "closed": patients},
		Extra: map[string]any{"policies": map[string]any{
			"allowed_algorithms": "suite.invalid/never", "allowed_algorithm_stores": "https://store.example.org/", "allow_either_whitelist_or_store": true,
			"rules": []any{map[string]any{"databases": "default", "functions": []string{"env", "noop"}, "limits": map[string]any{"pids": 77}}},
		}},
	})
	from := func(id int64) order { return func(s *standin.TaskSpec) { s.Store = id } }
	for name, c := range map[string]struct {
		method string
		orders []order
		says   string // empty: it is allowed
	}{
		"allowed":          {"noop", []order{from(store), databases("default")}, ""},
		"another function": {"count", []order{from(store), databases("default")}, `call the function "count"`},
		"another database": {"noop", []order{from(store), databases("default", "closed")}, `the database "closed"`},
		"from no store":    {"noop", []order{databases("default")}, "comes from none"},
	} {
		done := n.call(t, c.method, nil, c.orders...)
		if want := map[bool]string{true: standin.StatusCompleted, false: standin.StatusNotAllowed}[c.says == ""]; done.Status != want || !strings.Contains(done.Text, c.says) {
			t.Errorf("%s: %q, %q", name, done.Status, done.Text)
		}
		if i := show[[]admin.Inspection](t, n, "inspect", fmt.Sprint(done.ID)); c.says == "" && i[0].Limits.Asked.Pids != 77 {
			t.Errorf("the limits of the rule do not hold: %+v", i[0].Limits.Asked)
		}
	}
}

func signedImages(t *testing.T, w *world) {
	registry := w.registry(t, imagekit.RegistryOptions{})
	dir := filepath.Join(w.dir, fmt.Sprintf("keys%d", w.number())) // which the node's user can read
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	key := func(name string) (*ecdsa.PrivateKey, string) {
		k, public, err := imagekit.SigningKey()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name+".pub")
		if err := os.WriteFile(file, public, 0o644); err != nil {
			t.Fatal(err)
		}
		return k, file
	}
	trusted, file := key("trusted")
	stranger, _ := key("stranger")
	sign := func(repository string, k *ecdsa.PrivateKey, digest string, tagOf string) {
		img, err := imagekit.Sign(k, digest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Push(repository, strings.Replace(tagOf, ":", "-", 1)+".sig", img); err != nil {
			t.Fatal(err)
		}
	}
	refs := map[string]imagekit.Ref{}
	for _, name := range []string{"signed", "foreign", "swapped", "unsigned"} {
		refs[name] = w.pack(t, registry, "suite/"+name, name)
	}
	sign("suite/signed", trusted, refs["signed"].Digest, refs["signed"].Digest)
	sign("suite/foreign", stranger, refs["foreign"].Digest, refs["foreign"].Digest)
	sign("suite/swapped", trusted, refs["signed"].Digest, refs["swapped"].Digest)
	n := w.start(t, nodeOptions{Extra: map[string]any{"policies": map[string]any{"signatures": map[string]any{"keys": file}}}})
	before := registry.Counts().Blobs
	for name, says := range map[string]string{"foreign": "none of the keys", "swapped": "about another image", "unsigned": "there is no signature"} {
		done := n.call(t, "env", nil, image(refs[name].Tag))
		if done.Status != standin.StatusNotAllowed || !strings.Contains(done.Text, says) {
			t.Errorf("%s: %q, %q", name, done.Status, done.Text)
		}
		if e := n.onRecord(t, "decided", done.ID); len(e) != 1 || e[0]["allowed"] != false || !strings.Contains(fmt.Sprint(e[0]["reason"]), says) {
			t.Errorf("%s: on record is %v", name, e)
		}
	}
	// Two payloads of signatures, and the configurations by which the platform is known.
	if got := registry.Counts().Blobs - before; got > 5 {
		t.Errorf("%d blobs were fetched for images that may not run", got)
	}
	for _, ref := range []string{refs["signed"].Tag, refs["signed"].Pinned} {
		done := n.call(t, "env", nil, image(ref))
		if got := completed[environment](t, done).Raw["IMAGE_MARK"]; got != "signed" {
			t.Errorf("the image %q ran", got)
		}
		if e := n.onRecord(t, "decided", done.ID); len(e) != 1 || !strings.Contains(fmt.Sprint(e[0]["reason"]), "signed with trusted.pub") {
			t.Errorf("on record is %v", e)
		}
	}
	for _, r := range []*imagekit.Registry{registry, w.registry(t, imagekit.RegistryOptions{Referrers: true})} {
		bundledImages(t, w, n, r, trusted, stranger)
	}
	out, _, err := w.v6node(t, "policy", "test", "--config", n.Config, "--image", refs["foreign"].Tag)
	if err == nil || !strings.Contains(out, "none of the keys") || !strings.Contains(out, "of cosign 3") {
		t.Errorf("policy test: %v\n%s", err, out)
	}
	if out, errOut, err := w.v6node(t, "policy", "test", "--config", n.Config, "--image", refs["signed"].Tag); err != nil {
		t.Errorf("policy test: %v\n%s%s", err, out, errOut)
	}
}

// bundledImages: what cosign 3 writes beside images, in a registry that tells what refers to them or in one that does not.
func bundledImages(t *testing.T, w *world, n *node, r *imagekit.Registry, trusted, stranger *ecdsa.PrivateKey) {
	refs := map[string]imagekit.Ref{}
	for _, name := range []string{"signed3", "foreign3", "swapped3", "attested3"} {
		refs[name] = w.pack(t, r, "suite/"+name, name)
	}
	type statement struct {
		key              *ecdsa.PrivateKey
		about, predicate string
	}
	const sbom = "https://spdx.dev/Document"
	for name, all := range map[string][]statement{
		"signed3":   {{stranger, "signed3", imagekit.SignPredicate}, {trusted, "signed3", sbom}, {trusted, "signed3", imagekit.SignPredicate}},
		"foreign3":  {{stranger, "foreign3", imagekit.SignPredicate}},
		"swapped3":  {{trusted, "signed3", imagekit.SignPredicate}},
		"attested3": {{trusted, "attested3", sbom}},
	} {
		var referrers []v1.Image
		for _, s := range all {
			bundle, err := imagekit.Bundle(s.key, refs[s.about].Digest, s.predicate)
			if err != nil {
				t.Fatal(err)
			}
			img, err := imagekit.Referrer(refs[name].Digest, s.predicate, bundle)
			if err != nil {
				t.Fatal(err)
			}
			referrers = append(referrers, img)
		}
		if err := r.PushReferrers("suite/"+name, refs[name].Digest, referrers...); err != nil {
			t.Fatal(err)
		}
	}
	for name, says := range map[string]string{"foreign3": "none of the keys", "swapped3": "about another image", "attested3": "there is no signature"} {
		if done := n.call(t, "env", nil, image(refs[name].Tag)); done.Status != standin.StatusNotAllowed || !strings.Contains(done.Text, "of cosign 3 (a bundle that refers to the image): ") || !strings.Contains(done.Text, says) {
			t.Errorf("%s: %q, %q", name, done.Status, done.Text)
		}
	}
	for _, ref := range []string{refs["signed3"].Tag, refs["signed3"].Pinned} {
		done := n.call(t, "env", nil, image(ref))
		if got := completed[environment](t, done).Raw["IMAGE_MARK"]; got != "signed3" {
			t.Errorf("the image %q ran", got)
		}
		if e := n.onRecord(t, "decided", done.ID); len(e) != 1 || !strings.Contains(fmt.Sprint(e[0]["reason"]), "signed with trusted.pub") {
			t.Errorf("on record is %v", e)
		}
	}
}

// reconfigure changes a node's file.
func (n *node) reconfigure(t *testing.T, change func(map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	doc := map[string]any{}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	change(doc)
	if text, err = yaml.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func reloaded(t *testing.T, w *world) {
	n := w.start(t, nodeOptions{})
	g := n.hold(t)
	n.reconfigure(t, func(doc map[string]any) {
		doc["policies"] = map[string]any{"allowed_algorithms": "suite.invalid/never"}
		doc["limits"] = map[string]any{"memory": "lots"}
	})
	_, errOut, err := w.v6node(t, "reload", "--state-dir", n.StateDir)
	if err == nil || strings.Count(strings.TrimSpace(errOut), "\n") != 0 || !strings.Contains(errOut, "nothing has changed") || !strings.Contains(errOut, "limits.memory") {
		t.Errorf("an invalid file: %v, %s", err, errOut)
	}
	completed[map[string]any](t, n.call(t, "noop", nil))

	second := filepath.Join(filepath.Dir(n.Config), "second.csv")
	if err := os.WriteFile(second, []byte(patients), 0o644); err != nil {
		t.Fatal(err)
	}
	n.reconfigure(t, func(doc map[string]any) {
		doc["limits"], doc["proxy_port"] = map[string]any{"pids": 99}, 9999
		doc["databases"] = []any{map[string]any{"label": "second", "uri": second, "type": "csv"}}
	})
	c := show[admin.Change](t, n, "reload")
	if strings.Join(c.Applied, " ") != "databases policies limits" || strings.Join(c.Restart, " ") != "proxy_port" {
		t.Errorf("reload: %+v", c)
	}
	if done := n.call(t, "noop", nil); done.Status != standin.StatusNotAllowed {
		t.Errorf("under the new policies it ended as %q", done.Status)
	}
	n.reconfigure(t, func(doc map[string]any) { delete(doc, "policies") })
	if err := syscall.Kill(n.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if all := n.onRecord(t, "reloaded", 0); len(all) != 3 || all[2]["actor"] != "SIGHUP" {
			return fmt.Errorf("on record is %v", all)
		}
		return nil
	})
	done := n.call(t, "noop", nil, databases("second"))
	completed[map[string]any](t, done)
	if i := show[[]admin.Inspection](t, n, "inspect", fmt.Sprint(done.ID), fmt.Sprint(g.run)); i[0].Limits.Asked.Pids != 99 || i[1].Limits.Asked.Pids == 99 {
		t.Errorf("limits: new %+v, living %+v", i[0].Limits.Asked, i[1].Limits.Asked)
	}
	g.undisturbed(t)
}

func protectedKey(t *testing.T, w *world) {
	n := w.configure(t, nodeOptions{Sealed: true})
	lock(t, w, n, "correct horse")
	if out, errOut, err := w.v6node(t, "key", "upload", "--config", n.Config); err != nil || w.server.PublicKey(n.org) != n.key.Public().Base64() {
		t.Fatalf("upload: %v, %s%s", err, out, errOut)
	}
	if out, errOut, err := w.v6node(t, "key", "check", "--config", n.Config); err != nil {
		t.Errorf("check: %v, %s%s", err, out, errOut)
	}
	n.online(t)
	completed[map[string]any](t, n.call(t, "noop", nil))
	if strings.Contains(n.Log(1000), "horse") {
		t.Error("the passphrase is in the log")
	}
}
