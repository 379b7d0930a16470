package standin

import (
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
)

const when = "2026-11-22T03:13:55.985348+00:00"

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func runPath(id int64) string { return "/run/" + itoa(id) }

func TestAPatchOverwritesWhatItDoesNotName(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"started_at": when, "status": "active", "result": "cmVz", "log": "l"})
	if r := sc.run(runs[0]); r.Result == nil || r.Log == nil {
		t.Fatalf("run %+v", r)
	}
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "initializing"})
	r := sc.run(runs[0])
	if r.Result != nil || r.Log != nil || r.FinishedAt != nil {
		t.Errorf("result, log, finished_at survived: %+v", r)
	}
	if r.StartedAt == nil || r.Status != StatusInitializing {
		t.Errorf("started_at and status were not kept: %+v", r)
	}
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"log": "x"})
	if r := sc.run(runs[0]); r.Status != StatusInitializing {
		t.Errorf("status became %q", r.Status)
	}
}

func TestTimestampsNeedOneToSixDigitsAndNoOtherZoneThanZero(t *testing.T) {
	for text, code := range map[string]int{
		"2026-11-22T03:13:55.985348+00:00":    200,
		"2026-11-22T03:13:55.985348":          200,
		"2026-11-22T03:13:55.9+00:00":         200,
		"2026-11-22T03:13:55+00:00":           500,
		"2026-11-22T03:13:55":                 500,
		"2026-11-22T03:13:55.985348Z":         500,
		"2026-11-22T03:13:55.985348123+00:00": 500,
		"2026-11-22T03:13:55.985348+01:00":    500,
		"2026-11-22 03:13:55.985348+00:00":    500,
		"yesterday":                           400,
		"":                                    400,
	} {
		sc := newScene(t, false, Options{})
		_, runs := sc.task(sc.a)
		for _, key := range []string{"started_at", "finished_at"} {
			if got, a := sc.nodeA.do("PATCH", runPath(runs[0]), object{key: text}); got != code {
				t.Errorf("%s %q: %d %v, wanted %d", key, text, got, a, code)
			}
		}
		if r := sc.run(runs[0]); code != 200 && (r.StartedAt != nil || r.FinishedAt != nil) {
			t.Errorf("%q was stored", text)
		}
	}
}

func TestUnknownKeysNullsAndUnknownStatusesAreRefused(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	for _, body := range []string{
		`{"state":"active"}`, `{"result":null}`, `{"log":null}`, `{"finished_at":null}`, `{"status":null}`,
		`{"status":"Completed"}`, `{"status":"no docker image"}`, `{"log":5}`, `[]`, `{`, `null`,
	} {
		if code, a := sc.nodeA.do("PATCH", runPath(runs[0]), body); code != 400 {
			t.Errorf("%s: %d %v", body, code, a)
		}
	}
	for _, st := range []string{"pending", "initializing", "active"} {
		sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": st})
	}
	for _, st := range []string{
		"completed", "failed", "start failed", "non-existing Docker image", "crashed", "killed by user", "not allowed", "unknown error",
	} {
		_, runs := sc.task(sc.a)
		sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": st, "finished_at": when})
	}
}

func TestAFinishedRunCannotBeUpdated(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	final := object{"status": "completed", "result": "cmVz", "log": "l", "finished_at": when}
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), final)
	if a := sc.nodeA.must(400, "PATCH", runPath(runs[0]), final); a["msg"] != "Cannot update an already finished algorithm run!" {
		t.Errorf("answer %v", a)
	}
	r := sc.run(runs[0])
	if r.Count(RunPatched) != 1 || r.Count(RunPatchRefused) != 1 || r.History[1].Field("result") != "cmVz" {
		t.Errorf("history %+v", r.History)
	}
}

func TestAnotherOrganizationsRunIsNotYours(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	sc.nodeB.must(401, "PATCH", runPath(runs[0]), object{"status": "active"})
	sc.nodeB.must(404, "PATCH", runPath(9999), object{"status": "active"})
}

func TestARunIsOpenUntilItHasFinishedAt(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	open := func() int {
		t.Helper()
		return len(sc.nodeA.must(200, "GET", fmt.Sprintf("/run?state=open&node_id=%d&include=task", sc.idA), nil)["data"].([]any))
	}
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "crashed"})
	if open() != 1 {
		t.Error("a run with a final status and no finished_at is not open")
	}
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "crashed", "finished_at": when})
	if open() != 0 {
		t.Error("a finished run is open")
	}
}

func TestAFailureFailsSiblingsThatNobodyHasStarted(t *testing.T) {
	sc := newScene(t, false, Options{})
	for _, started := range []bool{false, true} {
		id, runs := sc.task(sc.a, sc.b)
		if started {
			sc.nodeB.must(200, "PATCH", runPath(runs[1]), object{"started_at": when})
		}
		sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "crashed", "finished_at": when})
		sib := sc.run(runs[1])
		if failed := sib.Status == StatusFailed && sib.FinishedAt != nil && sib.Count(RunFailedWithSibling) == 1; failed == started {
			t.Errorf("sibling with started=%t is %+v", started, sib)
		}
		want := StatusFailed // two kinds of failure
		if started {
			want = StatusCrashed
		}
		if st := sc.s.TaskStatus(id); st != want {
			t.Errorf("task is %q, wanted %q", st, want)
		}
	}
}

func TestListsComeInTensHighestFirstWithLinks(t *testing.T) {
	sc := newScene(t, false, Options{})
	for range 23 {
		sc.task(sc.a)
	}
	var ids []float64
	path := fmt.Sprintf("/run?state=open&node_id=%d&include=task", sc.idA)
	for page := 1; ; page++ {
		a := sc.nodeA.must(200, "GET", fmt.Sprintf("%s&page=%d", path, page), nil)
		for _, r := range a["data"].([]any) {
			ids = append(ids, r.(map[string]any)["id"].(float64))
		}
		links := a["links"].(map[string]any)
		if _, there := links["previous"]; there != (page > 1) {
			t.Errorf("page %d: links %v", page, links)
		}
		if _, more := links["next"]; !more {
			if page != 3 {
				t.Errorf("the last page is %d", page)
			}
			break
		}
		if want := fmt.Sprintf("/api/run?include=task&node_id=%d&page=%d&state=open", sc.idA, page+1); links["next"] != want {
			t.Errorf("next is %v, wanted %s", links["next"], want)
		}
	}
	if len(ids) != 23 {
		t.Fatalf("%d runs", len(ids))
	}
	for i := 1; i < len(ids); i++ {
		if ids[i] >= ids[i-1] {
			t.Fatalf("order %v", ids)
		}
	}
	if a := sc.nodeA.must(200, "GET", path+"&page=9223372036854775807", nil); len(a["data"].([]any)) != 0 {
		t.Error("a page far out has runs")
	}
	sc.nodeA.must(500, "GET", path+"&page=0", nil)
}

func TestARunHasItsTaskOnlyWhenAskedFor(t *testing.T) {
	sc := newScene(t, false, Options{})
	id, runs := sc.task(sc.a)
	bare := sc.nodeA.must(200, "GET", runPath(runs[0]), nil)["task"].(map[string]any)
	if len(bare) != 3 || bare["link"] != fmt.Sprintf("/api/task/%d", id) {
		t.Errorf("without include: %v", bare)
	}
	full := sc.nodeA.must(200, "GET", runPath(runs[0])+"?include=task", nil)["task"].(map[string]any)
	if full["image"] != "reg/algo:1" || full["parent"] != nil || full["init_org"].(map[string]any)["id"].(float64) != float64(sc.a) {
		t.Errorf("with include: %v", full)
	}
	var parameters map[string]string
	d := full["databases"].([]any)[0].(map[string]any)
	if err := json.Unmarshal([]byte(d["parameters"].(string)), &parameters); err != nil || parameters["query"] != "select 1" || d["label"] != "default" {
		t.Errorf("databases %v", d)
	}
}

func TestServerTimestampsCarryNoZone(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"started_at": when})
	if a := sc.nodeA.must(200, "GET", runPath(runs[0]), nil); a["started_at"] != "2026-11-22T03:13:55.985348" {
		t.Errorf("started_at %v", a["started_at"])
	}
}

func TestPortsAreReleasedAlsoWhereThereAreNone(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	sc.nodeA.must(200, "DELETE", "/port?run_id="+itoa(runs[0]), nil)
	sc.nodeA.must(201, "POST", "/port", object{"port": 8888, "run_id": runs[0], "label": "x"})
	sc.nodeA.must(200, "DELETE", "/port?run_id="+itoa(runs[0]), nil)
	if n := sc.run(runs[0]).Count(PortsReleased); n != 2 {
		t.Errorf("released %d times", n)
	}
	sc.nodeB.must(401, "DELETE", "/port?run_id="+itoa(runs[0]), nil)
}
