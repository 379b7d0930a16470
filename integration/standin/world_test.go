package standin

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/internal/socketio"
	"github.com/v6node/v6node/proxy/e2e"
)

// scene is a server with one collaboration of two organizations, a node each and a
// user of the first.
type scene struct {
	t        *testing.T
	s        *Server
	a, b     int64 // organizations
	collab   int64
	nodeA    *actor
	nodeB    *actor
	user     *actor
	idA, idB int64 // nodes
}

// actor is somebody with a token.
type actor struct {
	t     *testing.T
	s     *Server
	token string
}

func newScene(t *testing.T, encrypted bool, o Options) *scene {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	sc := &scene{t: t, s: s, a: s.AddOrganization("alpha"), b: s.AddOrganization("beta")}
	sc.collab = s.AddCollaboration("study", encrypted, sc.a, sc.b)
	keyA, keyB := s.AddNode(sc.a, sc.collab), s.AddNode(sc.b, sc.collab)
	sc.idA, sc.idB = s.NodeID(keyA), s.NodeID(keyB)
	s.AddUser(sc.a, "ada", "secret")
	sc.nodeA = sc.login("/token/node", object{"api_key": keyA})
	sc.nodeB = sc.login("/token/node", object{"api_key": keyB})
	sc.user = sc.login("/token/user", object{"username": "ada", "password": "secret"})
	return sc
}

func (sc *scene) login(path string, body any) *actor {
	sc.t.Helper()
	who := &actor{t: sc.t, s: sc.s}
	code, answer := who.do(http.MethodPost, path, body)
	if code != http.StatusOK {
		sc.t.Fatalf("login: %d %v", code, answer)
	}
	who.token = answer["access_token"].(string)
	return who
}

// do makes a request with a JSON body (a string is sent as it is).
func (w *actor) do(method, path string, body any) (int, map[string]any) {
	w.t.Helper()
	resp, err := w.send(method, path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	answer := map[string]any{}
	_ = json.Unmarshal(data, &answer) // an answer that is no JSON stays empty
	return resp.StatusCode, answer
}

func (w *actor) send(method, path string, body any) (*http.Response, error) {
	w.t.Helper()
	data, isText := body.(string)
	if !isText && body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		data = string(raw)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.s.URL()+path, strings.NewReader(data))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if w.token != "" {
		req.Header.Set("Authorization", "Bearer "+w.token)
	}
	return http.DefaultClient.Do(req)
}

// must expects a status and returns the answer.
func (w *actor) must(want int, method, path string, body any) map[string]any {
	w.t.Helper()
	code, answer := w.do(method, path, body)
	if code != want {
		w.t.Fatalf("%s %s: %d %v, wanted %d", method, path, code, answer, want)
	}
	return answer
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// order is the body of a task for some organizations.
func (sc *scene) order(orgs ...int64) object {
	var list []object
	for _, id := range orgs {
		list = append(list, object{"id": id, "input": b64(`{"method":"partial"}`)})
	}
	return object{"name": "t", "image": "reg/algo:1", "collaboration_id": sc.collab, "organizations": list,
		"databases": []object{{"label": "default", "query": "select 1"}}}
}

// task creates a task and returns its number and those of its runs.
func (sc *scene) task(orgs ...int64) (int64, []int64) {
	sc.t.Helper()
	answer := sc.user.must(http.StatusCreated, http.MethodPost, "/task", sc.order(orgs...))
	id := int64(answer["id"].(float64))
	var runs []int64
	for _, r := range sc.s.RunsOf(id) {
		runs = append(runs, r.ID)
	}
	return id, runs
}

func (sc *scene) run(id int64) RunRecord {
	sc.t.Helper()
	r, ok := sc.s.Run(id)
	if !ok {
		sc.t.Fatalf("there is no run %d", id)
	}
	return r
}

// dial opens a socket with a token ("" = none).
func (sc *scene) dial(token string) *socketio.Conn {
	sc.t.Helper()
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	c, err := socketio.Dial(sc.t.Context(), sc.s.Host()+"/socket.io/", header, "/tasks", socketio.Options{})
	if err != nil {
		sc.t.Fatal(err)
	}
	sc.t.Cleanup(func() { c.Close() })
	return c
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// next reads events until one of this name.
func next(t *testing.T, c *socketio.Conn, name string) map[string]any {
	t.Helper()
	for {
		e, err := c.Read(within(t))
		if err != nil {
			t.Fatalf("waiting for %s: %v", name, err)
		}
		if e.Name != name {
			continue
		}
		v := map[string]any{}
		if len(e.Args) > 0 {
			_ = json.Unmarshal(e.Args[0], &v) // messages carry text
		}
		return v
	}
}

// rest reads all events until the connection ends.
func rest(t *testing.T, c *socketio.Conn) []string {
	t.Helper()
	var names []string
	for {
		e, err := c.Read(within(t))
		if err != nil {
			return names
		}
		names = append(names, e.Name)
	}
}

func testKey(t *testing.T) *e2e.PrivateKey {
	t.Helper()
	k, err := e2e.GeneratePrivateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// claimsOf decodes a token's payload.
func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	v := map[string]any{}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
