package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
	"github.com/v6node/v6node/integration/standin"
)

// asProgram makes the test binary the algorithm itself.
const asProgram = "AVERAGE_TEST_RUNS_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// execute runs the algorithm as a node would, without a container, and returns
// output, log and whether it ended well.
func execute(t *testing.T, input []byte, env map[string]string) (output []byte, log string, well bool) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{"input": input, "output": nil, "token": []byte(env["TOKEN"])} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = []string{asProgram + "=1", "GORACE=atexit_sleep_ms=0"} // the race detector lingers a second otherwise
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+contract.Encode(v))
	}
	for _, f := range []string{"input", "output", "token"} {
		cmd.Env = append(cmd.Env, strings.ToUpper(f)+"_FILE="+contract.Encode(filepath.Join(dir, f)))
	}
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	output, readErr := os.ReadFile(filepath.Join(dir, "output"))
	if readErr != nil {
		t.Fatal(readErr)
	}
	return output, text.String(), err == nil
}

func csvEnv(t *testing.T, content string) map[string]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "data.csv")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"USER_REQUESTED_DATABASE_LABELS": "default", "DEFAULT_DATABASE_URI": file, "DEFAULT_DATABASE_TYPE": "csv",
	}
}

func TestNoopWritesAnEmptyObject(t *testing.T) {
	if out, log, well := execute(t, []byte(`{"method":"noop"}`), nil); !well || string(out) != "{}" {
		t.Errorf("output %q, log %q", out, log)
	}
}

func TestPartialSumsAColumnAndSkipsEmptyCells(t *testing.T) {
	env := csvEnv(t, "\ufeffage,sex\n10,m\n,f\n 20.5 ,f\n")
	out, log, well := execute(t, []byte(`{"method":"partial","args":["age"]}`), env)
	if !well || string(out) != `{"sum":30.5,"count":2}` {
		t.Errorf("output %q, log %q", out, log)
	}
}

func TestAFailureIsOneSentenceWithoutAValueOfTheData(t *testing.T) {
	for input, want := range map[string]string{
		`{"method":"partial","kwargs":{"column":"name"}}`: "line 2 has no number",
		`{"method":"partial","kwargs":{"column":"shoe"}}`: "no column",
		`{"method":"partial"}`:                            "column is missing",
		`{"method":"median"}`:                             "no method",
		`{}`:                                              "no method",
		`nonsense`:                                        "not the JSON",
	} {
		out, log, well := execute(t, []byte(input), csvEnv(t, "age,name\n10,jansen\n"))
		if well || len(out) != 0 || !strings.Contains(log, want) || strings.Contains(log, "jansen") || strings.Count(log, "\n") != 1 {
			t.Errorf("%s: well=%t, output %q, log %q", input, well, out, log)
		}
	}
}

func FuzzSumAcceptsOrRefusesButNeverPanics(f *testing.F) {
	f.Add("age\n1\n", "age")
	f.Add("a,\"b\"\n1,2\n1\n", "b")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, text, name string) {
		if s, err := sum(strings.NewReader(text), name); err == nil && s.Count < 0 {
			t.Error("negative count")
		}
	})
}

// player plays a node for the test: it finishes runs with what the algorithm says.
type player struct {
	t     *testing.T
	base  string
	token string
}

func (p *player) do(method, path string, body, into any) {
	p.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.base+path, bytes.NewReader(data))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+p.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
	if into != nil {
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			p.t.Fatal(err)
		}
	}
}

func newPlayer(t *testing.T, s *standin.Server, key string) *player {
	t.Helper()
	p := &player{t: t, base: s.URL()}
	var login struct {
		Token string `json:"access_token"`
	}
	p.do("POST", "/token/node", map[string]string{"api_key": key}, &login)
	p.token = login.Token
	return p
}

func (p *player) input(run int64) []byte {
	p.t.Helper()
	var r struct {
		Input string `json:"input"`
	}
	p.do("GET", fmt.Sprintf("/run/%d", run), nil, &r)
	data, err := base64.StdEncoding.DecodeString(r.Input)
	if err != nil {
		p.t.Fatal(err)
	}
	return data
}

func (p *player) finish(run int64, output []byte) {
	p.t.Helper()
	p.do("PATCH", fmt.Sprintf("/run/%d", run), map[string]string{
		"status": "completed", "result": base64.StdEncoding.EncodeToString(output), "log": "",
		"finished_at": "2026-11-22T03:13:55.985348+00:00",
	}, nil)
}

func TestCentralCombinesAllOrganizationsOverSeveralRounds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := standin.New(standin.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var orgs []int64
	for _, name := range []string{"alpha", "beta", "gamma"} {
		orgs = append(orgs, s.AddOrganization(name))
	}
	collab := s.AddCollaboration("study", false, orgs...)
	players, data := map[int64]*player{}, map[int64]map[string]string{}
	for i, org := range orgs {
		players[org] = newPlayer(t, s, s.AddNode(org, collab))
		data[org] = csvEnv(t, fmt.Sprintf("age\n%d\n%d\n", 10*(i+1), 1))
	}
	s.AddUser(orgs[0], "ada", "secret")
	r, err := standin.NewResearcher(ctx, s.URL(), "ada", "secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const rounds = 2
	task, err := r.CreateTask(ctx, standin.TaskSpec{
		Image: "reg/average:1", Collaboration: collab, Organizations: orgs[:1], Method: "central",
		Kwargs: map[string]any{"column": "age", "rounds": rounds}, Databases: []standin.DatabaseSpec{{Label: "default"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	run := s.RunsOf(task)[0].ID
	var container struct {
		Token string `json:"container_token"`
	}
	players[orgs[0]].do("POST", "/token/container", map[string]any{"task_id": task, "image": "reg/average:1"}, &container)
	type end struct {
		out  []byte
		log  string
		well bool
	}
	ended := make(chan end, 1)
	input := players[orgs[0]].input(run)
	go func() {
		out, log, well := execute(t, input, map[string]string{
			"HOST": "http://127.0.0.1", "PORT": fmt.Sprint(s.Port()), "API_PATH": s.APIPath(), "TOKEN": container.Token,
		})
		ended <- end{out, log, well}
	}()
	for round := 1; round <= rounds; round++ {
		subs, err := s.WaitChildren(ctx, task, round)
		if err != nil {
			t.Fatal(err)
		}
		for _, sub := range s.RunsOf(subs[round-1]) {
			p := players[sub.OrganizationID]
			out, log, well := execute(t, p.input(sub.ID), data[sub.OrganizationID])
			if !well {
				t.Fatalf("partial: %s", log)
			}
			p.finish(sub.ID, out)
		}
	}
	e := <-ended
	if !e.well {
		t.Fatalf("central: %s", e.log)
	}
	players[orgs[0]].finish(run, e.out)
	if st, err := r.WaitTask(ctx, task); err != nil || st != standin.StatusCompleted {
		t.Fatal(st, err)
	}
	results, err := r.Results(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	var got outcome
	if err := json.Unmarshal(results[0].Data, &got); err != nil {
		t.Fatal(err)
	}
	if math.Abs(got.Average-63.0/6) > 1e-9 || got.Count != 6 || got.Rounds != rounds || len(got.RoundSeconds) != rounds || len(got.Organizations) != 3 {
		t.Errorf("outcome %+v", got)
	}
}
