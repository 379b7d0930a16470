package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

// asProgram makes the test binary the algorithm itself.
const asProgram = "TESTALGO_TEST_RUNS_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type place struct {
	t   *testing.T
	dir string
}

func (p place) command(input string) *exec.Cmd {
	p.t.Helper()
	for name, content := range map[string]string{"input": input, "output": ""} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(content), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(p.t.Context(), os.Args[0])
	cmd.Env = []string{
		asProgram + "=1", "GORACE=atexit_sleep_ms=0", "INPUT_FILE=" + contract.Encode(filepath.Join(p.dir, "input")),
		"OUTPUT_FILE=" + contract.Encode(filepath.Join(p.dir, "output")), "TEMPORARY_FOLDER=" + contract.Encode(p.dir),
	}
	return cmd
}

func (p place) output() []byte {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, "output"))
	if err != nil {
		p.t.Fatal(err)
	}
	return data
}

// execute runs a method that must end well and decodes its output.
func (p place) execute(input string) map[string]any {
	p.t.Helper()
	if text, err := p.command(input).CombinedOutput(); err != nil {
		p.t.Fatalf("%s: %v: %s", input, err, text)
	}
	var v map[string]any
	if data := p.output(); len(data) > 0 {
		if err := json.Unmarshal(data, &v); err != nil {
			p.t.Fatalf("%s: output %.100q: %v", input, data, err)
		}
	}
	return v
}

func here(t *testing.T) place { return place{t, t.TempDir()} }

func TestExitEndsWithTheCodeAndNoOutput(t *testing.T) {
	p := here(t)
	err := p.command(`{"method":"exit","kwargs":{"code":42}}`).Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 42 || len(p.output()) != 0 {
		t.Errorf("%v, output %q", err, p.output())
	}
}

func TestNoOutputEndsWellWithAnEmptyFile(t *testing.T) {
	if v := here(t).execute(`{"method":"no_output"}`); v != nil {
		t.Errorf("output %v", v)
	}
}

func TestBigOutputIsJSONOfTheSizeAskedFor(t *testing.T) {
	p := here(t)
	if err := p.command(`{"method":"big_output","kwargs":{"bytes":1000003}}`).Run(); err != nil {
		t.Fatal(err)
	}
	var text string
	if err := json.Unmarshal(p.output(), &text); err != nil || len(text) != 1000003 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestSpamWritesTheLinesAskedForOnBothStreams(t *testing.T) {
	cmd := here(t).command(`{"method":"spam","kwargs":{"lines":100}}`)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Count(out.String(), "\n"), strings.Count(errs.String(), "\n"); a != 90 || b != 10 {
		t.Errorf("%d and %d lines", a, b)
	}
}

func TestCountCountsExecutionsInOneDirectory(t *testing.T) {
	p := here(t)
	for want := range 3 {
		if v := p.execute(`{"method":"count"}`); v["count"].(float64) != float64(want+1) {
			t.Errorf("execution %d: %v", want+1, v)
		}
	}
}

func TestEchoReturnsTheInput(t *testing.T) {
	v := here(t).execute(`{"method":"echo","args":[1],"kwargs":{"a":"b"}}`)
	if v["method"] != "echo" || v["kwargs"].(map[string]any)["a"] != "b" {
		t.Errorf("output %v", v)
	}
}

func TestOnTermReportsTheSignal(t *testing.T) {
	p := here(t)
	cmd := p.command(`{"method":"on_term"}`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it says when it listens
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(p.output()), `"terminated":true`) {
		t.Errorf("output %s", p.output())
	}
}

func TestProbeReportsWhatItSeesAndWhyItCannot(t *testing.T) {
	dir := t.TempDir()
	v := here(t).execute(`{"method":"probe","kwargs":{"connect":["127.0.0.1:1"],"write":["` + dir + `","/surely/not"]}}`)
	if w := v["writable"].(map[string]any); w[dir] != "" || w["/surely/not"] == "" {
		t.Errorf("writable %v", w)
	}
	if c := v["connect"].(map[string]any)["127.0.0.1:1"].(string); !strings.Contains(c, "refused") {
		t.Errorf("connecting to a closed port: %q", c)
	}
	if v["interfaces"].([]any)[0].(map[string]any)["name"] != "lo" || v["status"].(map[string]any)["CapEff"] == nil {
		t.Errorf("interfaces %v", v["interfaces"])
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("the probe left %v behind, %v", entries, err)
	}
}

func TestEnvReportsRawAndDecodedValues(t *testing.T) {
	p := here(t)
	v := p.execute(`{"method":"env"}`)
	if d := v["decoded"].(map[string]any); d["TEMPORARY_FOLDER"] != p.dir {
		t.Errorf("decoded %v", d)
	}
	if r := v["raw"].(map[string]any); r["TEMPORARY_FOLDER"] != contract.Encode(p.dir) {
		t.Errorf("raw %v", r)
	}
}

func TestAFailureToReadTheInputIsAnError(t *testing.T) {
	p := here(t)
	cmd := p.command("")
	if err := os.Remove(filepath.Join(p.dir, "input")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if text, err := cmd.CombinedOutput(); err == nil || !strings.HasPrefix(string(text), "testalgo: ") {
		t.Errorf("%v, %q", err, text)
	}
}

func TestTalkAndFetchReportWhatASideSays(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c) // what it says is compared
		fmt.Fprintf(c, "heard %s", b)
	}()
	t.Cleanup(func() { l.Close(); <-done })
	if v := here(t).execute(fmt.Sprintf(`{"method":"talk","kwargs":{"address":%q,"send":"hello"}}`, l.Addr())); v["text"] != "heard hello" || v["error"] != "" {
		t.Errorf("talk: %v", v)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	t.Cleanup(srv.Close)
	if v := here(t).execute(fmt.Sprintf(`{"method":"fetch","kwargs":{"url":%q}}`, srv.URL)); v["status"] != float64(http.StatusTeapot) {
		t.Errorf("fetch: %v", v)
	}
	l.Close()
	for _, input := range []string{`{"method":"talk","kwargs":{"address":%q}}`, `{"method":"fetch","kwargs":{"url":"http://%s/"}}`} {
		if v := here(t).execute(fmt.Sprintf(input, l.Addr())); v["error"] == "" || v["error"] == nil {
			t.Errorf("%s: %v, with nobody there", input, v)
		}
	}
}
