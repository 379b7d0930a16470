//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/v6node/v6node/node/admin"
)

// A fenced block of the manual is of a language. In one of "console" each line that begins with "$ " or
// "# " is a command, which goes on after a backslash at its end; what follows is its output, as an example. A
// comment above a block says that it ends with another exit code than 0, or that it is not run here and why.
type docBlock struct {
	page     string
	line     int
	commands []docCommand
	code     int    // the last command's exit code
	skipped  string // why it is not run
}

type docCommand struct {
	text   string
	output []string
}

var (
	docNotRun   = regexp.MustCompile(`^<!-- not run: (.+?)(?:; tested by (\S+) "(.+)")? -->$`)
	docExitCode = regexp.MustCompile(`^<!-- exit code: (\d+) -->$`)
	docLanguage = []string{"console", "text", "yaml", "toml", "go"}
)

// most blocks that are neither run nor have a test elsewhere.
const mostUntested = 3

func manualPages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d pages (%v)", len(pages), err)
	}
	return append([]string{"../README.md"}, pages...)
}

// docBlocks reads a page's commands.
func docBlocks(t *testing.T, page string) (blocks []docBlock) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		language, fence := strings.CutPrefix(strings.TrimSpace(lines[i]), "```")
		if !fence {
			continue
		}
		if !slices.Contains(docLanguage, language) {
			t.Errorf("%s:%d: a block of the language %q, which is none of %q", page, i+1, language, docLanguage)
		}
		b := docBlock{page: page, line: i + 1}
		if i > 0 {
			if m := docNotRun.FindStringSubmatch(lines[i-1]); m != nil {
				b.skipped = m[1]
				b.testedBy(t, m[2], m[3])
			} else if m := docExitCode.FindStringSubmatch(lines[i-1]); m != nil {
				b.code, _ = strconv.Atoi(m[1]) // digits
			} else if strings.HasPrefix(lines[i-1], "<!--") {
				t.Errorf("%s:%d: the comment %q is not understood", page, i, lines[i-1])
			}
		}
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
			command, is := strings.CutPrefix(lines[i], "$ ")
			if !is {
				command, is = strings.CutPrefix(lines[i], "# ")
			}
			switch last := len(b.commands) - 1; {
			case is:
				b.commands = append(b.commands, docCommand{text: command})
			case last >= 0 && strings.HasSuffix(b.commands[last].text, "\\"):
				b.commands[last].text += "\n" + lines[i]
			case last >= 0:
				b.commands[last].output = append(b.commands[last].output, lines[i])
			}
		}
		if language != "console" {
			continue
		}
		if len(b.commands) == 0 {
			t.Errorf("%s:%d: a block of commands without any", page, b.line)
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// untested counts the blocks for which nothing stands in.
var untested int

// testedBy checks that a block which is not run here is tested where it says.
func (b *docBlock) testedBy(t *testing.T, file, word string) {
	t.Helper()
	if file == "" {
		if untested++; untested > mostUntested {
			t.Errorf("%s:%d: another block that is tested nowhere (%s)", b.page, b.line, b.skipped)
		}
		return
	}
	text, err := os.ReadFile(filepath.Join("..", file))
	if err != nil || !strings.Contains(string(text), word) {
		t.Errorf("%s:%d: %s does not test it: it has no %q (%v)", b.page, b.line, file, word, err)
	}
}

// TestTheManualsCommandsWork runs every command of the manual as root beside a node that has runs in all
// states, in a mount namespace in which what they write to the machine is thrown away.
func TestTheManualsCommandsWork(t *testing.T) {
	w := newWorld(t, embeddedKind)
	s := newDocStage(t, w)
	defer s.end(t)
	untested = 0
	ran := 0
	for _, page := range manualPages(t) {
		var blocks []docBlock
		for _, b := range docBlocks(t, page) {
			if b.skipped == "" {
				blocks = append(blocks, b)
			}
		}
		if len(blocks) > 0 {
			t.Run(filepath.Base(page), func(t *testing.T) { ran += s.play(t, blocks) })
		}
	}
	if ran < 40 {
		t.Errorf("only %d commands were run: has the form of the manual changed?", ran)
	}
}

// docStage is where the manual's commands are run.
type docStage struct {
	w      *world
	n      *node
	dir    string
	held   string // an image whose runs wait for approval
	living []*gate
	second *node // what `v6node run` starts
	sealed *node // whose key is made and published
}

func newDocStage(t *testing.T, w *world) *docStage {
	t.Helper()
	held := w.push(t, "suite/held")
	if l, err := net.Listen("tcp", "127.0.0.1:9464"); err != nil {
		t.Fatalf("the manual's port for metrics is taken: %v", err)
	} else {
		l.Close()
	}
	s := &docStage{w: w, held: held.Tag, dir: filepath.Join(w.dir, "stage")}
	s.n = w.start(t, nodeOptions{Extra: map[string]any{
		"metrics":   map[string]any{"listen": "127.0.0.1:9464"},
		"resources": w.resources(map[string]any{"runs": 200, "memory": "1t", "pids": 1_000_000, "cpus": 1000}),
		"policies":  map[string]any{"rules": []any{map[string]any{"image": strings.TrimSuffix(held.Tag, ":latest"), "approve": "manual"}}},
	}})
	s.second = w.configure(t, nodeOptions{Extra: map[string]any{"policies": map[string]any{"allowed_algorithms": "registry.invalid/other"}}})
	s.sealed = w.configure(t, nodeOptions{Sealed: true})
	for _, dir := range []string{"bin", "home", "work", "upper"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sif, err := os.ReadFile("conformance/empty.sif")
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(s.second.Config)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"work/algorithm.sif": sif, "work/node.yaml": config, "bin/v6node": []byte(s.wrapper()), "bin/sudo": []byte("#!/bin/sh\nexec \"$@\"\n")} {
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	completed[any](t, s.n.call(t, "noop", nil))
	return s
}

// end lets what still runs end well.
func (s *docStage) end(t *testing.T) {
	for _, g := range s.living {
		g.release(t)
		completed[gated](t, s.n.finish(t, g.task))
	}
	eventually(t, func() error { // and those that a page has approved or killed
		if runs := show[[]admin.Run](t, s.n, "ps"); len(runs) > 0 {
			return fmt.Errorf("there are still %d runs", len(runs))
		}
		return nil
	})
}

// wrapper is v6node, but that what goes on for ever is interrupted: a node when it is connected, and a
// command that follows after a moment.
func (s *docStage) wrapper() string {
	return fmt.Sprintf(`#!/bin/bash
real=%q
case " $* " in
" run "*)
	args=()
	for a in "$@"; do args+=("$a"); done
	"$real" "${args[@]}" & pid=$!
	for i in $(seq 1 600); do
		kill -0 $pid 2>/dev/null || break
		"$real" info --state-dir %q 2>/dev/null | grep -q 'connected: *yes' && break
		sleep 0.1
	done
	kill -TERM $pid 2>/dev/null
	wait $pid ;;
*" -f "* | " stats ")
	timeout --signal INT 2 "$real" "$@"
	code=$?
	[ $code = 124 ] && exit 0 # it was interrupted
	exit $code ;;
" install --user ")
	# For a normal user, who can read what is in a checkout that root has built.
	mine=/opt/checkout
	mkdir -p $mine/bin $mine/home && cp "$(dirname "$real")"/v6node* $mine/bin && cp -r %q $mine/bundle
	chmod -R go+rX $mine && chown 65534:65534 $mine/home
	cd $mine/home
	exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=$mine/home V6NODE_BUNDLE=$mine/bundle $mine/bin/v6node "$@" ;;
*) exec "$real" "$@" ;;
esac
`, s.w.programs.V6node, s.second.StateDir, s.w.programs.Bundle)
}

var (
	docRun    = regexp.MustCompile(`\b1[01]\d\b`)
	docScreen = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]") // crictl stats clears it
	docSocket = regexp.MustCompile(`/run/v6node-c509e060e8d9/`)
)

// play runs the blocks of one page in one shell, and compares exit codes and the headings of tables.
func (s *docStage) play(t *testing.T, blocks []docBlock) (ran int) {
	for len(s.living) < 2 {
		s.living = append(s.living, s.n.hold(t))
	}
	var script strings.Builder
	fmt.Fprintln(&script, s.prelude(t, filepath.Base(blocks[0].page) == "commands.md"))
	type step struct {
		b    docBlock
		c    docCommand
		last bool
	}
	var steps []step
	for _, b := range blocks {
		for i, c := range b.commands {
			text := docSocket.ReplaceAllString(s.withRuns(t, c.text), filepath.Dir(strings.TrimPrefix(s.n.endpoint(t), "unix://"))+"/")
			fmt.Fprintf(&script, "{ %s\n} >%s/out.%d 2>&1; echo $? >%s/code.%d\n", text, s.dir, len(steps), s.dir, len(steps))
			steps = append(steps, step{b, c, i == len(b.commands)-1})
		}
	}
	cmd := exec.CommandContext(within(t), "unshare", "--mount", "--propagation", "private", "bash", "-u")
	cmd.Stdin, cmd.Dir = strings.NewReader(script.String()), filepath.Join(s.dir, "work")
	cmd.Env = []string{"PATH=" + filepath.Join(s.dir, "bin") + ":" + s.w.programs.Bundle + ":" + os.Getenv("PATH"), "HOME=" + filepath.Join(s.dir, "home"), "V6NODE_BUNDLE=" + s.w.programs.Bundle}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		t.Errorf("the shell ended with %v: %s", err, said.Bytes())
	}
	for i, st := range steps {
		code, err := os.ReadFile(filepath.Join(s.dir, fmt.Sprintf("code.%d", i)))
		out, _ := os.ReadFile(filepath.Join(s.dir, fmt.Sprintf("out.%d", i))) // shown if it failed
		want := "0"
		if st.last {
			want = strconv.Itoa(st.b.code)
		}
		if err != nil || strings.TrimSpace(string(code)) != want {
			t.Errorf("%s:%d: %s\nended with %s (%v), wanted %s:\n%s", st.b.page, st.b.line, st.c.text, bytes.TrimSpace(code), err, want, out)
			continue
		}
		ran++
		out = docScreen.ReplaceAll(out, nil)
		for _, line := range st.c.output {
			if isHeading(line) && !slices.ContainsFunc(strings.Split(string(out), "\n"), func(l string) bool { return slices.Equal(strings.Fields(l), strings.Fields(line)) }) {
				t.Errorf("%s:%d: %s\ndoes not print the heading %q but\n%s", st.b.page, st.b.line, st.c.text, line, out)
			}
		}
		_ = os.Remove(filepath.Join(s.dir, fmt.Sprintf("code.%d", i))) // the next page has its own
	}
	s.n.command(t, "resume") // a page may have paused it
	return ran
}

// isHeading tells whether a line is that of a table.
func isHeading(line string) bool {
	return len(strings.Fields(line)) > 2 && strings.ToUpper(line) == line && strings.IndexFunc(line, func(r rune) bool { return r >= '0' && r <= '9' }) < 0 && strings.Contains(line, "  ")
}

// withRuns puts the numbers of runs that are in the state that a command needs in the place of the manual's.
func (s *docStage) withRuns(t *testing.T, text string) string {
	t.Helper()
	if !strings.Contains(text, "v6node ") && !strings.Contains(text, "crictl ") {
		return text
	}
	return docRun.ReplaceAllStringFunc(text, func(string) string {
		switch {
		case strings.Contains(text, "approve"), strings.Contains(text, "deny"):
			_, run := s.n.post(t, "noop", nil, image(s.held))
			eventually(t, func() error {
				if !strings.Contains(s.n.command(t, "ps", "--filter", "status=held"), strconv.FormatInt(run, 10)) {
					return fmt.Errorf("run %d does not wait for approval", run)
				}
				return nil
			})
			return strconv.FormatInt(run, 10)
		case strings.Contains(text, " kill "):
			g := s.living[len(s.living)-1]
			s.living = s.living[:len(s.living)-1]
			return strconv.FormatInt(g.run, 10)
		}
		return strconv.FormatInt(s.living[0].run, 10)
	})
}

// prelude makes a machine of one's own: what is written to /etc, /usr, /opt and /var/lib is gone afterwards, and
// the node is the machine's only one. A page that makes the key finds none.
func (s *docStage) prelude(t *testing.T, keyless bool) string {
	t.Helper()
	key := filepath.Join(filepath.Dir(s.sealed.Config), "private_key.pem")
	text, err := os.ReadFile(s.sealed.Config)
	if err != nil {
		t.Fatal(err)
	}
	doc := map[string]any{}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	doc["encryption"].(map[string]any)["private_key"] = "/etc/v6node/private_key.pem"
	if text, err = yaml.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(s.dir, "sealed.yaml")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`set -e
state=%q stage=%q config=%q key=%q sockets=%q
mount -t tmpfs tmpfs $stage/upper
for d in /etc /usr /opt /var/lib; do
	mkdir -p $stage/upper$d/u $stage/upper$d/w
	mount -t overlay overlay -o lowerdir=$d,upperdir=$stage/upper$d/u,workdir=$stage/upper$d/w $d
done
mkdir -p /var/lib/v6node/site /etc/v6node /etc/bash_completion.d $HOME/.config/fish/completions $HOME/zsh
mount --bind $state /var/lib/v6node/site
mkdir -p $stage/upper/run && mount --rbind /run $stage/upper/run && mount -t tmpfs tmpfs /run
for d in $stage/upper/run/*/; do d=${d%%/}; mkdir -p /run/${d##*/}; mount --rbind $d /run/${d##*/}; done
mkdir -p /run/containerd && ln -sf $sockets/containerd.sock /run/containerd/containerd.sock 2>/dev/null
cp $config /etc/v6node/node.yaml
%v || cp $key /etc/v6node/private_key.pem
chmod 600 /etc/v6node/*
[ -S /var/lib/v6node/site/containerd-state/containerd.sock ] || ln -sf $sockets/containerd.sock /var/lib/v6node/site/containerd-state/containerd.sock
fpath=(x $HOME/zsh)
cd $stage/work
set +e
`, s.n.StateDir, s.dir, config, key, filepath.Dir(strings.TrimPrefix(s.n.endpoint(t), "unix://")), keyless)
}

// TestTheManualsLinksLead checks that each link of the manual leads to a page and a heading that are there.
func TestTheManualsLinksLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	anchors := func(file string) []string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		var out []string
		for _, m := range heading.FindAllStringSubmatch(string(text), -1) {
			name := strings.ToLower(strings.NewReplacer("`", "", ",", "", "'", "", ":", "", ".", "", "/", "", "?", "", "(", "", ")", "").Replace(m[1]))
			out = append(out, strings.ReplaceAll(name, " ", "-"))
		}
		return out
	}
	found := 0
	for _, page := range append(manualPages(t), "../CHANGELOG.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			found++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
			} else if anchor != "" && !slices.Contains(anchors(target), anchor) {
				t.Errorf("%s: %s has no heading for the link %s; it has %q", page, target, m[1], anchors(target))
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d links were found", found)
	}
}
