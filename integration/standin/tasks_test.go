package standin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestInputMustBeEncryptedExactlyWhereTheCollaborationIs(t *testing.T) {
	sealed, err := testKey(t).Public().Encrypt([]byte(`{"method":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		encrypted bool
		input     string
		code      int
	}{{false, b64(`{}`), 201}, {false, sealed, 400}, {true, b64(`{}`), 400}, {true, sealed, 201}, {true, "§", 500}} {
		sc := newScene(t, c.encrypted, Options{})
		o := sc.order(sc.a)
		o["organizations"] = []object{{"id": sc.a, "input": c.input}}
		if code, a := sc.user.do("POST", "/task", o); code != c.code {
			t.Errorf("encrypted=%t, input %.20q: %d %v, wanted %d", c.encrypted, c.input, code, a, c.code)
		}
	}
}

func TestATaskWithoutOrganizationsOrForStrangersIsRefused(t *testing.T) {
	sc := newScene(t, false, Options{})
	stranger := sc.s.AddOrganization("gamma")
	o := sc.order()
	delete(o, "organizations")
	sc.user.must(400, "POST", "/task", o)
	sc.user.must(400, "POST", "/task", sc.order(stranger))
	nodeless := sc.s.AddCollaboration("other", false, sc.a, stranger)
	o = sc.order(stranger)
	o["collaboration_id"] = nodeless
	sc.user.must(400, "POST", "/task", o)
	o["collaboration_id"] = 4711
	sc.user.must(404, "POST", "/task", o)
	o = sc.order(sc.a)
	o["surprise"] = 1
	sc.user.must(400, "POST", "/task", o)
}

func (sc *scene) container(taskID int64, image string) *actor {
	sc.t.Helper()
	a := sc.nodeA.must(200, "POST", "/token/container", object{"task_id": taskID, "image": image})
	return &actor{t: sc.t, s: sc.s, token: a["container_token"].(string)}
}

func TestAContainersTaskIsAChildOfItsOwn(t *testing.T) {
	sc := newScene(t, false, Options{})
	id, _ := sc.task(sc.a)
	sub := sc.container(id, "reg/algo:1").must(201, "POST", "/task", sc.order(sc.a, sc.b))
	parent := sc.user.must(200, "GET", "/task/"+itoa(id), nil)
	if sub["parent"].(map[string]any)["id"].(float64) != float64(id) || sub["job_id"] != parent["job_id"] {
		t.Errorf("subtask %v of %v", sub, parent)
	}
	if sub["init_user"].(map[string]any)["id"] != parent["init_user"].(map[string]any)["id"] {
		t.Error("the subtask has another user")
	}
	if c := sc.s.Children(id); len(c) != 1 || float64(c[0]) != sub["id"].(float64) {
		t.Errorf("children %v", c)
	}
}

func TestAContainerMayOnlyRepeatItsImageInItsCollaborationWhileItsTaskRuns(t *testing.T) {
	sc := newScene(t, false, Options{})
	id, runs := sc.task(sc.a)
	who := sc.container(id, "reg/algo:1")
	o := sc.order(sc.a)
	o["image"] = "reg/algo:2"
	who.must(401, "POST", "/task", o)

	other := sc.s.AddCollaboration("other", false, sc.a)
	sc.s.AddNode(sc.a, other)
	o = sc.order(sc.a)
	o["collaboration_id"] = other
	who.must(401, "POST", "/task", o)

	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "completed", "finished_at": when})
	who.must(401, "POST", "/task", sc.order(sc.a))
}

func TestATasksStatusFollowsFromItsRuns(t *testing.T) {
	for _, c := range []struct {
		runs []string
		want string
	}{
		{[]string{"completed", "completed"}, "completed"},
		{[]string{"pending", "completed"}, "pending"},
		{[]string{"pending", "initializing"}, "initializing"},
		{[]string{"active", "pending"}, "active"},
		{[]string{"active", "crashed"}, "crashed"},
		{[]string{"not allowed", "not allowed"}, "not allowed"},
		{[]string{"not allowed", "crashed"}, "failed"},
	} {
		tk := &task{}
		for _, st := range c.runs {
			tk.runs = append(tk.runs, &run{status: st})
		}
		if got := tk.status(); got != c.want {
			t.Errorf("%q: %q, wanted %q", c.runs, got, c.want)
		}
	}
}

func TestAKilledTaskIsFinishedByTheServerAndThePatchComesTooLate(t *testing.T) {
	sc := newScene(t, false, Options{})
	id, runs := sc.task(sc.a, sc.b)
	sock := sc.dial(sc.nodeA.token)
	next(t, sock, "message")
	next(t, sock, "message")
	sc.nodeB.must(200, "PATCH", runPath(runs[1]), object{"status": "completed", "finished_at": when})
	sc.user.must(200, "POST", "/kill/task", object{"id": id})
	e := next(t, sock, "kill_containers")
	list := e["kill_list"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["run_id"].(float64) != float64(runs[0]) || e["collaboration_id"].(float64) != float64(sc.collab) {
		t.Errorf("event %v", e)
	}
	if r := sc.run(runs[0]); r.Status != StatusKilled || r.FinishedAt == nil {
		t.Errorf("run %+v", r)
	}
	sc.nodeA.must(400, "PATCH", runPath(runs[0]), object{"status": "killed by user", "finished_at": when})
	sc.user.must(400, "POST", "/kill/task", object{"id": id})
	sc.user.must(404, "POST", "/kill/task", object{"id": 999})
}

func TestADeletedTaskIsKilledAndItsRunsAndSubtasksAreGone(t *testing.T) {
	sc := newScene(t, false, Options{})
	id, runs := sc.task(sc.a)
	sub := sc.container(id, "reg/algo:1").must(201, "POST", "/task", sc.order(sc.a))
	subID := int64(sub["id"].(float64))
	subRun := sc.s.RunsOf(subID)[0].ID
	kept, _ := sc.task(sc.a)
	sock := sc.dial(sc.nodeA.token)
	next(t, sock, "message")
	next(t, sock, "message")
	path := "/task/" + itoa(id)
	sc.user.must(200, "DELETE", path, nil)
	if list := next(t, sock, "kill_containers")["kill_list"].([]any); len(list) != 2 {
		t.Errorf("the kill names %v", list)
	}
	for _, r := range []int64{runs[0], subRun} {
		for _, a := range []map[string]any{
			sc.nodeA.must(404, "GET", runPath(r), nil),
			sc.nodeA.must(404, "PATCH", runPath(r), object{"status": "completed", "finished_at": when}),
		} {
			if a["msg"] != "Run id="+itoa(r)+" not found!" {
				t.Errorf("run %d: %v", r, a)
			}
		}
	}
	sc.user.must(404, "GET", "/task/"+itoa(subID), nil)
	sc.user.must(404, "DELETE", path, nil)
	sc.user.must(200, "GET", "/task/"+itoa(kept), nil)
}

func TestAForgottenTaskCanComeBack(t *testing.T) {
	sc := newScene(t, false, Options{})
	id, runs := sc.task(sc.a)
	restore := sc.s.ForgetTask(id)
	sc.nodeA.must(404, "GET", runPath(runs[0]), nil)
	restore()
	sc.nodeA.must(200, "GET", runPath(runs[0]), nil)
	sc.user.must(200, "GET", "/task/"+itoa(id), nil)
}

func TestKillingANodeSendsNoListAndFinishesNothing(t *testing.T) {
	sc := newScene(t, false, Options{})
	_, runs := sc.task(sc.a)
	sc.user.must(400, "POST", "/kill/node/tasks", object{"id": sc.idA}) // offline
	sock := sc.dial(sc.nodeA.token)
	next(t, sock, "message")
	next(t, sock, "message")
	sc.user.must(200, "POST", "/kill/node/tasks", object{"id": sc.idA})
	e := next(t, sock, "kill_containers")
	if _, there := e["kill_list"]; there || e["node_id"].(float64) != float64(sc.idA) {
		t.Errorf("event %v", e)
	}
	if r := sc.run(runs[0]); r.FinishedAt != nil {
		t.Error("the server finished the run")
	}
	sc.s.EmitKillList(sc.collab, nil)
	if e := next(t, sock, "kill_containers"); len(e["kill_list"].([]any)) != 0 {
		t.Errorf("event %v", e)
	}
}

func TestASharedPolicyKeepsUsersFromCreatingTasks(t *testing.T) {
	sc := newScene(t, false, Options{})
	sock := sc.dial(sc.nodeA.token)
	for policy, code := range map[string]int{"999": 400, "alpha": 201} {
		if err := sock.Emit(t.Context(), "node_info_update", object{"allowed_orgs": []string{policy}}); err != nil {
			t.Fatal(err)
		}
		if err := sc.s.wait(within(t), func() bool {
			n := sc.s.nodes[sc.idA]
			return len(n.config) == 1 && n.config[0].value == policy
		}); err != nil {
			t.Fatal(err)
		}
		sc.user.must(code, "POST", "/task", sc.order(sc.a))
	}
}

func TestAResearcherSendsEncryptedInputAndReadsEncryptedResults(t *testing.T) {
	for _, blobs := range []bool{false, true} {
		sc := newScene(t, true, Options{BlobStore: blobs})
		ctx := within(t)
		keyA, keyB := testKey(t), testKey(t)
		sc.nodeB.must(200, "PATCH", "/organization/"+itoa(sc.b), object{"public_key": keyB.Public().Base64()})
		r, err := NewResearcher(ctx, sc.s.URL(), "ada", "secret", keyA)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if sc.s.PublicKey(sc.a) != keyA.Public().Base64() {
			t.Error("the researcher's key was not published")
		}
		id, err := r.CreateTask(ctx, TaskSpec{Image: "reg/algo:1", Collaboration: sc.collab, Organizations: []int64{sc.a, sc.b}, Method: "noop"})
		if err != nil {
			t.Fatal(err)
		}
		runs := sc.s.RunsOf(id)
		for i, who := range []*actor{sc.nodeA, sc.nodeB} {
			result := "null"
			if !blobs {
				if result, err = keyA.Public().Encrypt([]byte(`{"n":1}`)); err != nil {
					t.Fatal(err)
				}
				input := who.must(200, "GET", runPath(runs[i].ID), nil)["input"].(string)
				key := keyA
				if i == 1 {
					key = keyB
				}
				if plain, err := key.Decrypt(input); err != nil || string(plain) != `{"method":"noop"}` {
					t.Errorf("input of run %d: %q %v", runs[i].ID, plain, err)
				}
			} else {
				result = who.storeBlob(keyA.Public().EncryptBlob, `{"n":1}`)
			}
			who.must(200, "PATCH", runPath(runs[i].ID), object{"status": "completed", "result": result, "log": "done", "finished_at": when})
		}
		if st, err := r.WaitTask(ctx, id); err != nil || st != StatusCompleted {
			t.Fatal(st, err)
		}
		sc.s.ExpireTokens(sc.s.nodes[sc.idB].id+1, false) // the user's: it logs in again
		list, err := r.Results(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 2 || string(list[0].Data) != `{"n":1}` || string(list[1].Data) != `{"n":1}` || list[1].OrganizationID != sc.b || list[0].Log != "done" {
			t.Errorf("results %+v", list)
		}
	}
}

func TestWaitingForATaskEndsWhenTheTaskEnds(t *testing.T) {
	sc := newScene(t, false, Options{})
	ctx := within(t)
	r, err := NewResearcher(ctx, sc.s.URL(), "ada", "secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	id, runs := sc.task(sc.a)
	type end struct {
		status string
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		st, err := r.WaitTask(ctx, id)
		ended <- end{st, err}
	}()
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "active"})
	sc.nodeA.must(200, "PATCH", runPath(runs[0]), object{"status": "crashed", "finished_at": when})
	if e := <-ended; e.err != nil || e.status != StatusCrashed {
		t.Errorf("%+v", e)
	}
	if n := len(sc.s.Requests(func(q Request) bool { return q.Path == "/task/"+itoa(id)+"/status" })); n != 1 {
		t.Errorf("%d requests for the status", n)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	other, _ := sc.task(sc.a)
	if _, err := sc.s.WaitTask(short, other); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for an open task ended with %v", err)
	}
}

func TestWithoutABlobStoreBlobsAreNotImplemented(t *testing.T) {
	sc := newScene(t, false, Options{})
	if a := sc.nodeA.must(200, "GET", "/blobstream/status", nil); a["blob_store_enabled"] != false {
		t.Errorf("status %v", a)
	}
	sc.nodeA.must(http.StatusNotImplemented, "POST", "/blobstream", "x")
	sc.nodeA.must(404, "GET", "/blobstream/nothing", nil)
}

func TestAnOrganizationsKeyMayOnlyBeSetByItself(t *testing.T) {
	sc := newScene(t, true, Options{})
	sc.nodeB.must(401, "PATCH", "/organization/"+itoa(sc.a), object{"public_key": b64("key")})
	sc.nodeA.must(400, "PATCH", "/organization/"+itoa(sc.a), object{"public_key": "-----BEGIN"})
	sc.nodeA.must(200, "PATCH", "/organization/"+itoa(sc.a), object{"public_key": b64("key")})
	if a := sc.nodeB.must(200, "GET", "/organization/"+itoa(sc.a), nil); a["public_key"] != b64("key") {
		t.Errorf("organization %v", a)
	}
}

// storeBlob encrypts a text and uploads it.
func (w *actor) storeBlob(encrypt func(io.Reader) (io.Reader, error), text string) string {
	w.t.Helper()
	sealed, err := encrypt(strings.NewReader(text))
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := io.ReadAll(sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.must(201, "POST", "/blobstream", string(data))["uuid"].(string)
}
