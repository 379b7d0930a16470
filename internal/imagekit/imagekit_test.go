package imagekit

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func spec(t *testing.T) Spec {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(binary, []byte("not really a program"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Spec{Binary: binary, Files: Skeleton(), Env: []string{"PKG_NAME=average"}, User: "65534:65534"}
}

func build(t *testing.T, s Spec) v1.Image {
	t.Helper()
	img, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func serve(t *testing.T, o RegistryOptions) *Registry {
	t.Helper()
	r, err := Serve(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func get(t *testing.T, url, user, password string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

func TestAnImageIsValidAndSaysWhatItsSpecSays(t *testing.T) {
	for _, zip := range []bool{false, true} {
		s := spec(t)
		s.Gzip = zip
		img := build(t, s)
		// The validator understands only gzip layers.
		if err := validate.Image(img); zip && err != nil {
			t.Fatal(err)
		}
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if c.OS != "linux" || c.Config.User != "65534:65534" || len(c.Config.Entrypoint) != 1 || c.Config.Entrypoint[0] != "/algorithm" || c.Config.Env[0] != "PKG_NAME=average" {
			t.Errorf("gzip %t: configuration %+v of %s", zip, c.Config, c.OS)
		}
	}
}

func TestEqualSpecsGiveEqualDigestsAndOthersDoNot(t *testing.T) {
	s := spec(t)
	first := digest(t, build(t, s))
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(s.Binary, later, later); err != nil {
		t.Fatal(err)
	}
	if again := digest(t, build(t, s)); again != first {
		t.Errorf("the same binary with another date gave %s and %s", first, again)
	}
	s.Architecture = "s390x"
	if other := digest(t, build(t, s)); other == first {
		t.Error("another architecture gave the same digest")
	}
}

func TestTheLayerHoldsParentsBeforeChildrenWithTheirModes(t *testing.T) {
	s := spec(t)
	s.Path = "/opt/bin/program"
	layers, err := build(t, s).Layers()
	if err != nil {
		t.Fatal(err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	modes, names := map[string]int64{}, []string{}
	for tr := tar.NewReader(content); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names, modes[h.Name] = append(names, h.Name), h.Mode
	}
	want := []string{"etc/", "etc/group", "etc/passwd", "opt/", "opt/bin/", "opt/bin/program", "tmp/"}
	if len(names) != len(want) {
		t.Fatalf("layer holds %q", names)
	}
	for i := range want {
		if names[i] != want[i] {
			t.Fatalf("layer holds %q, wanted %q", names, want)
		}
	}
	if modes["tmp/"] != 0o1777 || modes["opt/bin/program"] != 0o755 {
		t.Errorf("modes %v", modes)
	}
}

func TestAPathTwiceIsRefused(t *testing.T) {
	s := spec(t)
	s.Files = append(s.Files, File{Path: "/tmp", Data: []byte("x")})
	if _, err := Build(s); err == nil {
		t.Error("an image with /tmp as directory and as file was built")
	}
}

func TestAPushedImageIsServedByTagAndDigestAndCounted(t *testing.T) {
	r := serve(t, RegistryOptions{})
	ref, err := r.Push("demo/average", "v1", build(t, spec(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, reference := range []string{"v1", ref.Digest} {
		if code, _ := get(t, "http://"+r.Host()+"/v2/demo/average/manifests/"+reference, "", ""); code != http.StatusOK {
			t.Errorf("manifest %s: %d", reference, code)
		}
	}
	if c := r.Counts(); c != (Counts{Manifests: 2}) {
		t.Errorf("counts %+v after two manifests", c)
	}
}

func TestAnIndexIsServedWithItsImages(t *testing.T) {
	r := serve(t, RegistryOptions{})
	s := spec(t)
	here := build(t, s)
	s.Architecture = "s390x"
	index, err := Index(here, build(t, s))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := r.PushIndex("multi", "v1", index)
	if err != nil {
		t.Fatal(err)
	}
	for _, reference := range []string{"v1", ref.Digest, digest(t, here)} {
		if code, _ := get(t, "http://"+r.Host()+"/v2/multi/manifests/"+reference, "", ""); code != http.StatusOK {
			t.Errorf("manifest %s: %d", reference, code)
		}
	}
}

func TestARegistryWithAPasswordRefusesOthers(t *testing.T) {
	r := serve(t, RegistryOptions{Username: "node", Password: "secret"})
	if _, err := r.Push("private", "v1", build(t, spec(t))); err != nil {
		t.Fatal(err)
	}
	url := "http://" + r.Host() + "/v2/private/manifests/v1"
	for _, c := range []struct {
		user, password string
		code           int
	}{{"", "", 401}, {"node", "wrong", 401}, {"node", "secret", 200}} {
		if code, _ := get(t, url, c.user, c.password); code != c.code {
			t.Errorf("as %q with %q: %d, wanted %d", c.user, c.password, code, c.code)
		}
	}
	if c := r.Counts(); c.Denied != 2 {
		t.Errorf("counts %+v, wanted 2 denied", c)
	}
}

func TestHeldBlobsArriveAfterTheRelease(t *testing.T) {
	r := serve(t, RegistryOptions{})
	img := build(t, spec(t))
	if _, err := r.Push("slow", "v1", img); err != nil {
		t.Fatal(err)
	}
	name, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	release := r.HoldBlobs()
	code := make(chan int, 1)
	go func() {
		resp, err := http.Get("http://" + r.Host() + "/v2/slow/blobs/" + name.String())
		if err != nil {
			code <- 0
			return
		}
		resp.Body.Close()
		code <- resp.StatusCode
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.WaitHeld(ctx, 1); err != nil {
		t.Fatal(err)
	}
	select {
	case c := <-code:
		t.Fatalf("a held download was answered with %d", c)
	default:
	}
	release()
	if c := <-code; c != http.StatusOK {
		t.Errorf("after the release: %d", c)
	}
}

func TestARefusingRegistryAnswersAsTold(t *testing.T) {
	r := serve(t, RegistryOptions{})
	r.Refuse(http.StatusForbidden)
	if code, _ := get(t, "http://"+r.Host()+"/v2/", "", ""); code != http.StatusForbidden {
		t.Errorf("refusing registry answered %d", code)
	}
	r.Refuse(0)
	if code, _ := get(t, "http://"+r.Host()+"/v2/", "", ""); code != http.StatusOK {
		t.Errorf("the registry still answers %d", code)
	}
}

func TestTheRegistryEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, err := Serve(ctx, RegistryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-r.done
	r.Close()
}
