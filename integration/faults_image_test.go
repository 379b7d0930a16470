//go:build integration

package integration

import (
	"net/http"
	"runtime"
	"strconv"
	"testing"

	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/internal/imagekit"
)

// imageFaults are those of images and of the registries that have them.
func imageFaults() []scenario {
	list := []scenario{
		{"an image that its registry does not have", noSuchImage},
		{"many runs that are refused while their sandboxes start", manyRefused},
		{"an image for another architecture", foreignImage},
		{"an image that has the wrong name", noImageName},
		{"a registry that is not there", noRegistry},
		{"a registry that dies during the download", dyingRegistry},
		{"an image without a program that can be started", noProgram},
	}
	for code, says := range map[int]string{
		http.StatusUnauthorized:        "docker_registries",
		http.StatusForbidden:           "docker_registries",
		http.StatusInternalServerError: "try again",
	} {
		list = append(list, scenario{"a registry that answers " + strconv.Itoa(code), func(t *testing.T, w *world) {
			r := w.registry(t, imagekit.RegistryOptions{})
			ref := w.pack(t, r, "refused/algorithm", "refused")
			r.Refuse(code)
			alpha := w.alpha(t)
			done := alpha.call(t, "noop", nil, image(ref.Tag))
			alpha.failed(t, done, standin.StatusNoImage, ref.Tag, strconv.Itoa(code), says)
		}})
	}
	return list
}

func noSuchImage(t *testing.T, w *world) {
	alpha := w.alpha(t)
	ref := w.lab.Registry.Host() + "/suite/missing:latest"
	alpha.failed(t, alpha.call(t, "noop", nil, image(ref)), standin.StatusNoImage, ref, "does not exist", "check the name")
}

// manyRefused: each is given up while the runtime is busy with its sandbox. What
// the runtime would leave of it is found at the end of the world.
func manyRefused(t *testing.T, w *world) {
	alpha := w.alpha(t)
	ref := w.lab.Registry.Host() + "/suite/missing:latest"
	tasks := make([]int64, 16)
	for i := range tasks {
		tasks[i], _ = alpha.post(t, "noop", nil, image(ref))
	}
	for _, task := range tasks {
		done := alpha.finish(t, task)
		if done.Status != standin.StatusNoImage {
			t.Errorf("run %d ended as %q: %s", done.ID, done.Status, done.Text)
		}
		alpha.gone(t, done.ID)
	}
}

func foreignImage(t *testing.T, w *world) {
	foreign := "arm64"
	if runtime.GOARCH == foreign {
		foreign = "amd64"
	}
	ref := w.push(t, "faults/foreign", func(s *imagekit.Spec) { s.Architecture = foreign })
	alpha := w.alpha(t)
	alpha.failed(t, alpha.call(t, "noop", nil, image(ref.Tag)), standin.StatusNoImage, ref.Tag, "linux/"+foreign, "does not run on this machine")
}

func noImageName(t *testing.T, w *world) {
	alpha := w.alpha(t)
	alpha.failed(t, alpha.call(t, "noop", nil, image("No Such:Image:")), standin.StatusNoImage, "No Such:Image:", "check the name")
}

func noRegistry(t *testing.T, w *world) {
	r := w.registry(t, imagekit.RegistryOptions{})
	ref := w.pack(t, r, "away/algorithm", "away")
	r.Close()
	alpha := w.alpha(t)
	alpha.failed(t, alpha.call(t, "noop", nil, image(ref.Tag)), standin.StatusNoImage, ref.Tag, "refused", "check the network")
}

func dyingRegistry(t *testing.T, w *world) {
	r := w.registry(t, imagekit.RegistryOptions{})
	img, err := imagekit.Build(imagekit.Spec{Binary: w.programs.Algorithm("testalgo"), Env: []string{"IMAGE_MARK=dying"}})
	if err != nil {
		t.Fatal(err)
	}
	// An index says by itself for which platforms it is: the node's look-up
	// needs no blob, only the runtime's pull does.
	index, err := imagekit.Index(img)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := r.PushIndex("dying/algorithm", "latest", index)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.HoldBlobs())
	alpha := w.alpha(t)
	task, _ := alpha.post(t, "noop", nil, image(ref.Tag))
	if err := r.WaitHeld(within(t), 1); err != nil {
		t.Fatal(err)
	}
	r.Close()
	alpha.failed(t, alpha.finish(t, task), standin.StatusNoImage, ref.Digest, "registry")
}

func noProgram(t *testing.T, w *world) {
	ref := w.push(t, "faults/noprogram", func(s *imagekit.Spec) { s.Entrypoint = []string{"/no/such/program"} })
	alpha := w.alpha(t)
	alpha.failed(t, alpha.call(t, "noop", nil, image(ref.Tag)), standin.StatusStartFailed, "/no/such/program", "correct the image's entrypoint")
}
