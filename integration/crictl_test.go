//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func inspectionScenarios() []scenario {
	return []scenario{{"crictl shows a run by name, namespace and labels", crictlShows}}
}

func crictlShows(t *testing.T, w *world) {
	alpha := w.alpha(t)
	g := alpha.hold(t)
	run := strconv.FormatInt(g.run, 10)
	ask := func(args ...string) string {
		t.Helper()
		out, err := w.crictl(t, alpha.endpoint(t), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	name, mine := "run-"+run, "ai.vantage6.run="+run
	pod := strings.TrimSpace(ask("pods", "--label", mine, "--label", "ai.vantage6.node="+alpha.instance(t), "-q"))
	container := strings.TrimSpace(ask("ps", "--pod", pod, "-q"))
	if pod == "" || container == "" {
		t.Fatalf("crictl lists pod %q and container %q", pod, container)
	}

	for _, table := range []struct {
		args []string
		want []string
	}{
		{[]string{"pods", "--id", pod, "--namespace", "vantage6"}, []string{name, "vantage6", "Ready"}},
		{[]string{"ps", "--pod", pod}, []string{"algorithm", name, "vantage6", "Running"}},
		{[]string{"logs", container}, []string{"waiting at the gate"}},
	} {
		out := ask(table.args...)
		for _, want := range table.want {
			if !strings.Contains(out, want) {
				t.Errorf("crictl %q does not show %q:\n%s", table.args, want, out)
			}
		}
	}

	labels := map[string]string{
		"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "vantage6", "io.kubernetes.pod.uid": alpha.instance(t) + "-" + run,
		"ai.vantage6.node": alpha.instance(t), "ai.vantage6.run": run, "ai.vantage6.task": strconv.FormatInt(g.task, 10),
		"ai.vantage6.job": strconv.FormatInt(g.job(t), 10), "ai.vantage6.organization": strconv.FormatInt(alpha.org, 10),
	}
	type inspected struct {
		Status struct {
			Metadata struct{ Name, Namespace string }
			State    string
			ImageRef string
			Image    struct{ UserSpecifiedImage, Image string }
			Labels   map[string]string
		}
	}
	var inside, outside inspected
	for what, v := range map[string]*inspected{ask("inspect", container): &inside, ask("inspectp", pod): &outside} {
		if err := json.Unmarshal([]byte(what), v); err != nil {
			t.Fatal(err)
		}
		for k, want := range labels {
			if v.Status.Labels[k] != want {
				t.Errorf("label %s is %q, wanted %q", k, v.Status.Labels[k], want)
			}
		}
	}
	if got := inside.Status.Labels["io.kubernetes.container.name"]; got != "algorithm" || inside.Status.Metadata.Name != "algorithm" {
		t.Errorf("the container is called %q, by its label %q", inside.Status.Metadata.Name, got)
	}
	if outside.Status.Metadata.Name != name || outside.Status.Metadata.Namespace != "vantage6" {
		t.Errorf("the pod is %+v", outside.Status.Metadata)
	}
	if text := fmt.Sprint(inside.Status); !strings.Contains(text, w.testalgo.Digest) {
		t.Errorf("the container's image is not named by its digest %s: %s", w.testalgo.Digest, text)
	}
	g.release(t)
	completed[gated](t, alpha.finish(t, g.task))
	alpha.gone(t, g.run)
	if left := strings.TrimSpace(ask("pods", "--id", pod, "-q")); left != "" {
		t.Errorf("crictl still lists the pod %s", left)
	}
}
