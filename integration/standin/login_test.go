package standin

import (
	"net/http"
	"testing"
	"time"
)

func TestABadAPIKeyIsNotRecognized(t *testing.T) {
	sc := newScene(t, false, Options{})
	who := &actor{t: t, s: sc.s}
	if a := who.must(401, "POST", "/token/node", object{"api_key": "nonsense"}); a["msg"] != "Api key is not recognized!" {
		t.Errorf("answer %v", a)
	}
}

func TestTheAccessTokenNamesTheNodeAsAnIntegerThatIsNotOne(t *testing.T) {
	sc := newScene(t, false, Options{})
	c := claimsOf(t, sc.nodeA.token)
	sub, isNumber := c["sub"].(float64)
	if !isNumber || int64(sub) != sc.idA || sub == 1 {
		t.Errorf("sub is %v, the node is %d", c["sub"], sc.idA)
	}
	if c["client_type"] != "node" || c["type"] != "access" || c["exp"].(float64)-c["iat"].(float64) != 6*3600 {
		t.Errorf("claims %v", c)
	}
}

func TestRefreshTakesTheRefreshTokenAndNoBody(t *testing.T) {
	sc := newScene(t, false, Options{})
	key := sc.s.nodes[sc.idA].apiKey
	who := &actor{t: t, s: sc.s}
	login := who.must(200, "POST", "/token/node", object{"api_key": key})
	if login["refresh_url"] != "/api/token/refresh" || login["node_url"] != "/api/node/6" {
		t.Errorf("login answered %v", login)
	}
	who.token = login["refresh_token"].(string)
	again := who.must(200, "POST", "/token/refresh", nil)
	if len(again) != 4 {
		t.Errorf("refresh answered %v", again)
	}
	who.token = again["access_token"].(string)
	who.must(422, "POST", "/token/refresh", nil)
	who.must(200, "GET", "/node/6", nil)
}

func TestExpiredForgedAndMissingTokensAreTold(t *testing.T) {
	sc := newScene(t, false, Options{})
	(&actor{t: t, s: sc.s}).must(401, "GET", "/node/6", nil)
	sc.s.ExpireTokens(sc.idA, false)
	if a := sc.nodeA.must(401, "GET", "/node/6", nil); a["msg"] != "Token has expired" {
		t.Errorf("expired: %v", a)
	}
	sc.s.RotateSecret()
	sc.nodeB.must(422, "GET", "/node/6", nil)
}

func TestATokenLivesAsLongAsConfigured(t *testing.T) {
	sc := newScene(t, false, Options{AccessLife: time.Nanosecond})
	sc.nodeA.must(401, "GET", "/node/6", nil)
}

func TestARevokedKeyIsNotRecognizedButItsTokensLive(t *testing.T) {
	sc := newScene(t, false, Options{})
	key := sc.s.nodes[sc.idA].apiKey
	sc.s.RevokeKey(sc.idA)
	(&actor{t: t, s: sc.s}).must(401, "POST", "/token/node", object{"api_key": key})
	sc.nodeA.must(200, "GET", "/node/6", nil)
	sc.s.RestoreKey(sc.idA)
	(&actor{t: t, s: sc.s}).must(200, "POST", "/token/node", object{"api_key": key})
}

func TestAServersClockDatesAndJudgesItsTokens(t *testing.T) {
	sc := newScene(t, false, Options{})
	sc.s.SkewClock(10 * 365 * 24 * time.Hour)
	sc.nodeA.must(401, "GET", "/node/6", nil) // of today
	later := &actor{t: t, s: sc.s, token: sc.s.NodeToken(sc.idA)}
	later.must(200, "GET", "/node/6", nil)
	if iat := claimsOf(t, later.token)["iat"].(float64); time.Unix(int64(iat), 0).Before(time.Now().AddDate(9, 0, 0)) {
		t.Errorf("a token is dated %v", time.Unix(int64(iat), 0))
	}
	sc.s.SkewClock(0)
	sc.nodeA.must(200, "GET", "/node/6", nil)
}

func TestARunWhoseOutcomeIsLostIsOpenAgain(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	final := object{"status": "completed", "finished_at": "2026-11-22T03:13:55.985348+00:00", "result": "e30="}
	sc.nodeA.must(200, "PATCH", "/run/"+itoa(runs[0]), final)
	sc.nodeA.must(400, "PATCH", "/run/"+itoa(runs[0]), final)
	sc.s.ReopenRun(runs[0])
	if r, _ := sc.s.Run(runs[0]); r.Status != StatusPending || r.FinishedAt != nil || r.Result != nil || r.Count(RunReopened) != 1 {
		t.Errorf("the run is %+v", r)
	}
	sc.nodeA.must(200, "PATCH", "/run/"+itoa(runs[0]), final)
}

func TestTheContainerTokenHasAnObjectForSubjectAndNoEnd(t *testing.T) {
	sc := newScene(t, false, Options{})
	id, _ := sc.task(sc.a)
	a := sc.nodeA.must(200, "POST", "/token/container", object{"task_id": id, "image": "reg/algo:1"})
	c := claimsOf(t, a["container_token"].(string))
	if _, there := c["exp"]; there {
		t.Error("a container token has exp")
	}
	sub, isObject := c["sub"].(map[string]any)
	if !isObject || int64(sub["task_id"].(float64)) != id || sub["image"] != "reg/algo:1" || sub["study_id"] != nil || int64(sub["organization_id"].(float64)) != sc.a {
		t.Fatalf("sub is %v", c["sub"])
	}
	if d := sub["databases"].([]any)[0].(map[string]any); d["label"] != "default" || d["query"] != "select 1" {
		t.Errorf("databases %v", sub["databases"])
	}
}

func TestAContainerTokenIsOnlyForTheTasksImageAndWhileTheTaskRuns(t *testing.T) {
	sc := newScene(t, false, Options{})
	id, runs := sc.task(sc.a)
	sc.nodeA.must(401, "POST", "/token/container", object{"task_id": id, "image": "reg/algo:2"})
	sc.nodeA.must(400, "POST", "/token/container", object{"task_id": id + 77, "image": "reg/algo:1"})
	sc.nodeA.must(200, "PATCH", "/run/"+itoa(runs[0]), object{"status": "completed", "finished_at": "2026-11-22T03:13:55.985348+00:00"})
	if a := sc.nodeA.must(400, "POST", "/token/container", object{"task_id": id, "image": "reg/algo:1"}); a["msg"] != "Task is already finished!" {
		t.Errorf("answer %v", a)
	}
}

func TestTheAPIPathIsConfigurableAndMayBeEmpty(t *testing.T) {
	for path, want := range map[string]string{"": "/api", "/": "", "/v6/server": "/v6/server"} {
		sc := newScene(t, false, Options{APIPath: path})
		if sc.s.URL() != sc.s.Host()+want {
			t.Errorf("path %q gives %s", path, sc.s.URL())
		}
		sc.nodeA.must(200, "GET", "/node/6", nil)
		next(t, sc.dial(sc.nodeA.token), "sync")
	}
}

func TestAHolderOfTheWrongKindCrashesTheServer(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	sc.user.must(http.StatusInternalServerError, "PATCH", "/run/"+itoa(runs[0]), object{"status": "active"})
}
