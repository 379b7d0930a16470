// Package grafana tests that the dashboard and the alerts ask for metrics that
// exist.
package grafana

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The manual's table equals what is exported: the tests of node/metrics see to it.
func TestDashboardAndAlertsNameMetricsThatExist(t *testing.T) {
	exist := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(v6node_[a-z_]+)` \\| ([a-z]+)").FindAllStringSubmatch(read(t, "../../docs/metrics.md"), -1) {
		exist[m[1]] = true
		if m[2] == "histogram" {
			exist[m[1]+"_bucket"], exist[m[1]+"_sum"], exist[m[1]+"_count"] = true, true, true
		}
	}
	expr := regexp.MustCompile(`"?expr"?: (.*)`)
	metric := regexp.MustCompile(`\bv6node_[a-z_]+`)
	for path, least := range map[string]int{"v6node.json": 40, "../prometheus/v6node.rules.yml": 8} {
		found := expr.FindAllStringSubmatch(read(t, path), -1)
		if len(found) < least {
			t.Errorf("%s has only %d expressions", path, len(found))
		}
		for _, e := range found {
			names := metric.FindAllString(e[1], -1)
			if len(names) == 0 && !strings.Contains(e[1], "process_") && !strings.Contains(e[1], "go_") {
				t.Errorf("%s: no metric in %s", path, e[1])
			}
			for _, n := range names {
				if !exist[n] {
					t.Errorf("%s asks for %s, which docs/metrics.md does not have", path, n)
				}
			}
		}
	}
}
