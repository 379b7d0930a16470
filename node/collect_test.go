package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/collect"
	"github.com/v6node/v6node/node/config"
	"github.com/v6node/v6node/node/ledger"
	"github.com/v6node/v6node/node/workspace"
	"github.com/v6node/v6node/runtime"
)

// fakeStore holds images under several names, as runtimes do.
type fakeStore struct {
	fakeImages
	mu         sync.Mutex
	images     map[string]*runtime.Image // by id
	containers []*runtime.Container
	stuck      string // the id of one that cannot be removed
	busy       string // the id of one that a container has
	removed    []string
	onRemove   func(id string)
}

func newStore(images ...*runtime.Image) *fakeStore {
	s := &fakeStore{images: make(map[string]*runtime.Image)}
	for _, i := range images {
		s.images[i.ID] = i
	}
	return s
}

func (s *fakeStore) find(ref string) *runtime.Image {
	for _, i := range s.images {
		if i.ID == ref || slices.Contains(i.RepoDigests, ref) || slices.Contains(i.RepoTags, ref) {
			return i
		}
	}
	return nil
}

func (s *fakeStore) Image(_ context.Context, ref string) (*runtime.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.find(ref); i != nil {
		return i, nil
	}
	return nil, runtime.ErrImageNotFound
}

func (s *fakeStore) ListImages(context.Context) (out []*runtime.Image, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.images {
		out = append(out, i)
	}
	return out, nil
}

func (s *fakeStore) ListContainers(context.Context, map[string]string) ([]*runtime.Container, error) {
	return s.containers, nil
}

func (s *fakeStore) RemoveImage(_ context.Context, ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(ref)
	if i == nil {
		return nil
	}
	if i.ID == s.busy {
		return runtime.ErrImageInUse
	}
	if i.ID == s.stuck {
		return errors.New("the runtime does not want to")
	}
	delete(s.images, i.ID)
	s.removed = append(s.removed, i.ID)
	if s.onRemove != nil {
		s.onRemove(i.ID)
	}
	return nil
}

func (s *fakeStore) gone() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.removed, " ")
}

func digest(letter string) string { return "sha256:" + strings.Repeat(letter, 64) }

// img is an image of 100 bytes whose id and digest are of one letter.
func img(letter string) *runtime.Image {
	return &runtime.Image{ID: digest(letter), RepoDigests: []string{"reg.invalid/" + letter + "@" + digest(letter)}, Size: 100}
}

// ran is the record of a run of such an image that ended so many hours ago.
func ran(id int64, letter string, hours int) *ledger.Record {
	return &ledger.Record{
		RunID: id, Image: "reg.invalid/" + letter + ":v1", Pinned: "reg.invalid/" + letter + "@" + digest(letter),
		State: ledger.Done, FinishedAt: time.Now().Add(-time.Duration(hours) * time.Hour).UTC(),
	}
}

// open takes a record back to a state.
func open(r *ledger.Record, s ledger.State) *ledger.Record {
	r.State, r.FinishedAt = s, time.Time{}
	if s == ledger.Received {
		r.Pinned = ""
	}
	return r
}

// collector is a node that does nothing but collect.
func collector(t *testing.T, store Images, yaml string, records ...*ledger.Record) *Node {
	t.Helper()
	cfg, _, err := config.Parse("node.yaml", []byte("server_url: http://127.0.0.1\napi_key: k\n"+yaml))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := ledger.Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for _, r := range records {
		if err := l.Insert(r); err != nil {
			t.Fatal(err)
		}
	}
	n := &Node{
		cfg: cfg, ledger: l, images: store, engine: newFakeEngine(echo), log: slog.New(slog.DiscardHandler), journal: admin.NewJournal(admin.JournalSize),
		files: workspace.Root{Dir: filepath.Join(dir, "work")}, spool: filepath.Join(dir, "spool"), stateDir: dir,
		seen: sightings{}, collecting: make(chan struct{}, 1), active: map[int64]*activeRun{},
		space: func(string) (collect.Space, error) { return collect.Space{Total: 1 << 40, Free: 1 << 39}, nil },
	}
	if err := os.MkdirAll(n.spool, 0o700); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *Node) mustCollect(t *testing.T, o admin.GCOptions) *admin.GCReport {
	t.Helper()
	r, err := n.collect(t.Context(), o, func() {})
	if err != nil || len(r.Problems) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	return r
}

func names(r *admin.GCReport) string {
	var out []string
	for _, i := range r.Items {
		out = append(out, i.Kind+" "+i.Name)
	}
	return strings.Join(out, ", ")
}

const foreign = "runtime: {endpoint: unix:///run/c.sock}\n"

func TestImagesBeyondTheBudgetGoLeastRecentlyUsedFirst(t *testing.T) {
	store := newStore(img("a"), img("b"), img("c"), img("d"), img("e"), img("f"))
	n := collector(t, store, foreign+"gc: {images: {max_size: 400b, keep: ['reg.invalid/c:v1']}}\n",
		ran(1, "a", 90), ran(2, "b", 80), ran(3, "c", 70), ran(4, "d", 60), ran(5, "e", 50), ran(6, "f", 40),
		open(ran(7, "a", 0), ledger.Starting), open(ran(8, "b", 0), ledger.Received))
	dry := n.mustCollect(t, admin.GCOptions{DryRun: true})
	if store.gone() != "" {
		t.Fatalf("a dry run removed %s", store.gone())
	}
	real := n.mustCollect(t, admin.GCOptions{})
	if got, want := names(real), "image reg.invalid/d@"+digest("d")+", image reg.invalid/e@"+digest("e"); got != want {
		t.Errorf("collected %s, want %s", got, want)
	}
	if got, want := store.gone(), digest("d")+" "+digest("e"); got != want {
		t.Errorf("the runtime was asked to remove %s", got)
	}
	if names(dry) != names(real) || dry.Freed != real.Freed || real.Freed != 200 || real.Items[0].Reason != dry.Items[0].Reason {
		t.Errorf("the dry run said %+v, and then %+v", dry, real)
	}
	if again := n.mustCollect(t, admin.GCOptions{}); len(again.Items) != 0 {
		t.Errorf("a second round collects %s", names(again))
	}
	if all := n.mustCollect(t, admin.GCOptions{All: true}); names(all) != "image reg.invalid/f@"+digest("f") {
		t.Errorf("without regard to age: %s", names(all))
	}
}

func TestImagesThatWereNotUsedForLongGo(t *testing.T) {
	store := newStore(img("a"), img("b"))
	n := collector(t, store, foreign+"gc: {images: {max_age: 48h}}\n", ran(1, "a", 49), ran(2, "b", 49), ran(3, "b", 47))
	if r := n.mustCollect(t, admin.GCOptions{}); store.gone() != digest("a") || r.Items[0].Reason != "not used for 2 days" {
		t.Errorf("%+v", r)
	}
}

func TestAnImageIsNeededUnderEachOfItsNames(t *testing.T) {
	both := img("a")
	both.RepoDigests = append(both.RepoDigests, "reg.invalid/b@"+digest("b"))
	store := newStore(both)
	n := collector(t, store, foreign, ran(1, "a", 999), open(ran(2, "b", 0), ledger.Running))
	if r := n.mustCollect(t, admin.GCOptions{All: true}); len(r.Items) != 0 {
		t.Errorf("collected %s", names(r))
	}
}

func TestATagKeepsOnlyTheImageThatItMeantLast(t *testing.T) {
	older, newer := ran(1, "a", 20), ran(2, "b", 10)
	newer.Image = older.Image
	waits := open(ran(3, "a", 0), ledger.Received)
	n := collector(t, newStore(img("a"), img("b")), foreign, older, newer, waits)
	if r := n.mustCollect(t, admin.GCOptions{All: true}); names(r) != "image reg.invalid/a@"+digest("a") {
		t.Errorf("collected %s", names(r))
	}
}

func TestOfAForeignRuntimeOnlyTheNodesImagesGo(t *testing.T) {
	tagged, sandbox, byOthers, unused := img("a"), img("b"), img("c"), img("d")
	tagged.RepoTags = []string{"reg.invalid/a:v1"}
	sandbox.Pinned = true
	all := []*runtime.Image{tagged, sandbox, byOthers, unused, img("e")}
	records := []*ledger.Record{ran(1, "a", 999), ran(2, "b", 999), ran(3, "c", 999), ran(4, "e", 999)}
	inUse := []*runtime.Container{{ID: "x", ImageRef: digest("c")}}

	store := newStore(all...)
	store.containers = inUse
	collector(t, store, foreign, records...).mustCollect(t, admin.GCOptions{All: true})
	if store.gone() != digest("e") {
		t.Errorf("from another's runtime went %s", store.gone())
	}

	// In the node's own, all are the node's.
	store = newStore(all...)
	store.containers = inUse
	n := collector(t, store, "", records...)
	if r := n.mustCollect(t, admin.GCOptions{}); len(r.Items) != 2 {
		t.Errorf("by age went %s", names(r))
	}
	n.mustCollect(t, admin.GCOptions{All: true})
	got := strings.Fields(store.gone())
	slices.Sort(got)
	if want := []string{digest("a"), digest("d"), digest("e")}; !slices.Equal(got, want) {
		t.Errorf("from the node's own runtime went %s", got)
	}
}

func TestOfAForeignRuntimeAnImageStaysThatSomebodyElseHasPulledToo(t *testing.T) {
	converted, shared, tagged, elsewhere := img("a"), img("b"), img("c"), img("d")
	converted.RepoDigests = []string{"127.0.0.1:40001/sif/a@" + digest("1"), "127.0.0.1:40002/imported/a@" + digest("1")}
	shared.RepoDigests = append(shared.RepoDigests, "127.0.0.1:40001/imported/b@"+digest("2"))
	tagged.RepoDigests, tagged.RepoTags = []string{"127.0.0.1:40001/imported/c@" + digest("3")}, []string{"reg.invalid/c:v1"}
	elsewhere.RepoDigests = append(elsewhere.RepoDigests, "mirror.invalid/d@"+digest("d"))
	records := []*ledger.Record{ran(4, "d", 999), ran(5, "e", 999)}
	for i, letter := range []string{"a", "b", "c"} {
		r := ran(int64(i+1), letter, 999)
		r.RuntimeImage = digest(letter)
		records = append(records, r)
	}
	store := newStore(converted, shared, tagged, elsewhere, img("e"))
	collector(t, store, foreign, records...).mustCollect(t, admin.GCOptions{All: true})
	got := strings.Fields(store.gone())
	slices.Sort(got)
	if !slices.Equal(got, []string{digest("a"), digest("e")}) {
		t.Errorf("went %s", got)
	}
}

func TestAnImageThatAContainerHasByNowStays(t *testing.T) {
	store := newStore(img("a"), img("b"))
	store.busy = digest("a")
	r := collector(t, store, foreign, ran(1, "a", 999), ran(2, "b", 999)).mustCollect(t, admin.GCOptions{All: true})
	if store.gone() != digest("b") || len(r.Items) != 1 || r.Freed != 100 {
		t.Errorf("went %s: %+v", store.gone(), r)
	}
}

func TestAFailedRemovalIsReportedAndTheRestGoes(t *testing.T) {
	store := newStore(img("a"), img("b"))
	store.stuck = digest("a")
	n := collector(t, store, foreign, ran(1, "a", 2000), ran(2, "b", 1900))
	r := n.mustCollect(t, admin.GCOptions{})
	if len(r.Items) != 2 || !strings.Contains(r.Items[0].Error, "does not want to") || r.Items[1].Error != "" || r.Freed != 100 || store.gone() != digest("b") {
		t.Errorf("%+v", r)
	}
	var told []string
	if err := n.journal.Read(t.Context(), admin.EventOptions{}, func(e *admin.Event) error { told = append(told, string(e.Type)+" "+e.Message); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || !strings.HasPrefix(told[0], "gc image reg.invalid/b@") {
		t.Errorf("events %q", told)
	}
}

// fakeCache keeps things until they are removed.
type fakeCache struct {
	things []collect.Thing
	gone   []string
}

func (c *fakeCache) Things() ([]collect.Thing, error) { return c.things, nil }

func (c *fakeCache) add(name string, size int64, hours int, onRemove func()) {
	c.things = append(c.things, collect.Thing{
		Kind: kindCache, Name: name, Names: []string{name}, Size: size, UsedAt: time.Now().Add(-time.Duration(hours) * time.Hour),
		Remove: func(context.Context) (bool, error) {
			c.gone = append(c.gone, name)
			c.things = slices.DeleteFunc(c.things, func(t collect.Thing) bool { return t.Name == name })
			if onRemove != nil {
				onRemove()
			}
			return true, nil
		},
	})
}

func TestCachesGoByAgeAndKeepWhatRunsNeed(t *testing.T) {
	needs := &ledger.Record{RunID: 1, State: ledger.Starting, Image: "sif:algo", Pinned: "sif:algo@" + digest("a"), RuntimeImage: digest("b")}
	n := collector(t, newStore(), foreign, needs)
	c := &fakeCache{}
	c.add(digest("a"), 10, 9000, nil)
	c.add(digest("c"), 10, 9000, nil)
	c.add(digest("d"), 10, 1, nil)
	n.caches = []Cache{c}
	n.mustCollect(t, admin.GCOptions{})
	if got := strings.Join(c.gone, " "); got != digest("c") {
		t.Errorf("gone %s", got)
	}
}

func TestAFullDiskIsRelievedByNoMoreThanItTakes(t *testing.T) {
	for _, c := range []struct {
		short int64 // in megabytes
		want  string
	}{
		{0, ""},
		{10, "cache big"},
		{130, "cache big, image reg.invalid/a@" + digest("a")},
		{250, "cache big, image reg.invalid/a@" + digest("a") + ", image reg.invalid/b@" + digest("b") + ", scratch job 7"},
	} {
		const mega = 1 << 20
		free := int64(10<<30) - c.short*mega
		a, b := img("a"), img("b")
		a.Size, b.Size = 100*mega, 100*mega
		store := newStore(a, b)
		store.onRemove = func(string) { free += 100 * mega }
		n := collector(t, store, foreign, ran(1, "a", 2), ran(2, "b", 1))
		n.space = func(string) (collect.Space, error) { return collect.Space{Total: 1 << 40, Free: free}, nil }
		cache := &fakeCache{}
		cache.add("small", mega/2, 100, nil)
		cache.add("big", 40*mega, 1, func() { free += 40 * mega })
		n.caches = []Cache{cache}
		if err := os.MkdirAll(filepath.Join(n.files.Dir, "jobs", "7", "data"), 0o700); err != nil {
			t.Fatal(err)
		}
		if short, err := n.isShort(t.Context()); err != nil || short != (c.short > 0) {
			t.Errorf("%d MB short: %v, %v", c.short, short, err)
		}
		dry := n.mustCollect(t, admin.GCOptions{DryRun: true})
		if got := names(dry); got != c.want {
			t.Errorf("%d MB short: the dry run says %s, want %s", c.short, got, c.want)
		}
		if got := names(n.mustCollect(t, admin.GCOptions{})); got != c.want {
			t.Errorf("%d MB short: collected %s, want %s", c.short, got, c.want)
		}
	}
}

func TestImagesOnAnotherFileSystemAreNoHelpToTheStateDirectory(t *testing.T) {
	store := &elsewhere{newStore(img("a"))}
	n := collector(t, store, foreign, ran(1, "a", 1))
	full := uint64(1)
	n.space = func(dir string) (collect.Space, error) {
		s := collect.Space{Device: 1, Total: 1 << 40, Free: 1 << 39}
		if dir == "/images" {
			s.Device = 2
		}
		if s.Device == full {
			s.Free = 1 << 30
		}
		return s, nil
	}
	if r := n.mustCollect(t, admin.GCOptions{}); len(r.Items) != 0 {
		t.Errorf("collected %s", names(r))
	}
	full = 2
	if short, err := n.isShort(t.Context()); err != nil || !short {
		t.Errorf("short %v, %v", short, err)
	}
	if r := n.mustCollect(t, admin.GCOptions{}); len(r.Items) != 1 {
		t.Errorf("collected %s", names(r))
	}
}

// elsewhere keeps its images on a file system of their own.
type elsewhere struct{ *fakeStore }

func (*elsewhere) ImageDirectories(context.Context) ([]string, error) {
	return []string{"/images"}, nil
}

func TestRecordsAreForgottenWhenNothingElseHangsOnThem(t *testing.T) {
	const year = 365 * 24
	n := collector(t, newStore(img("b")), foreign+"gc: {images: {max_age: 0, max_size: 0}}\n",
		ran(1, "a", year), ran(2, "b", year), ran(3, "b", year-1), ran(4, "a", 1), open(ran(5, "c", 0), ledger.Exited))
	dry := n.mustCollect(t, admin.GCOptions{DryRun: true})
	if r := n.mustCollect(t, admin.GCOptions{}); names(r) != "record of 2 runs" || names(dry) != names(r) {
		t.Errorf("collected %s, in a dry run %s", names(r), names(dry))
	}
	var left []int64
	if err := n.ledger.Each(func(r *ledger.Record) error { left = append(left, r.RunID); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(left, []int64{3, 4, 5}) {
		t.Errorf("the ledger knows %v", left)
	}
	// With the image goes the last reason to remember it.
	if r := n.mustCollect(t, admin.GCOptions{All: true}); names(r) != "image reg.invalid/b@"+digest("b")+", record of 1 runs" {
		t.Errorf("collected %s", names(r))
	}
}

func TestRemainsOfRunsAndProxiesGo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the files of a run are unmounted, which needs root")
	}
	n := collector(t, newStore(), foreign, ran(1, "a", 1), open(ran(2, "a", 0), ledger.Starting))
	for _, id := range []string{"1", "2", "3"} {
		dir := filepath.Join(n.files.Dir, "runs", id, "data")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "output"), make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, age := range map[string]time.Duration{"old": 2 * time.Hour, "new": 0} {
		path, at := filepath.Join(n.spool, name), time.Now().Add(-age)
		if err := os.WriteFile(path, make([]byte, 10), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	n.engine.(*fakeEngine).boxes["sandbox-9"] = 9
	r := n.mustCollect(t, admin.GCOptions{})
	got := strings.Split(names(r), ", ")
	slices.Sort(got)
	if want := []string{"run 1", "run 3", "run 9", "spool old"}; !slices.Equal(got, want) {
		t.Errorf("collected %q, want %q", got, want)
	}
	if ids, err := n.files.RunIDs(); err != nil || !slices.Equal(ids, []int64{2}) {
		t.Errorf("left %v, %v", ids, err)
	}
	if left, err := os.ReadDir(n.spool); err != nil || len(left) != 1 || left[0].Name() != "new" {
		t.Errorf("the spool has %v, %v", left, err)
	}
	if n.engine.(*fakeEngine).left() != 0 {
		t.Error("the sandbox of an unknown run is left")
	}
	if r.Freed < 10_000 {
		t.Errorf("freed %d bytes", r.Freed)
	}
}

func TestLogsOfRunsGoByAgeAndSizeAndNotByHand(t *testing.T) {
	n := collector(t, newStore(), foreign)
	n.cfg.GC.LogAge, n.cfg.GC.LogSize = 48*time.Hour, 2500
	for id, age := range map[int64]time.Duration{1: 72 * time.Hour, 2: 3 * time.Hour, 3: 2 * time.Hour, 4: time.Hour} {
		w := n.files.Open(id)
		if err := os.MkdirAll(w.LogDir(), 0o700); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(w.LogFile(), make([]byte, 1000), 0o600), os.Chtimes(w.LogFile(), at, at), w.KeepLog()); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Dir(w.LogDir())); err != nil {
			t.Fatal(err)
		}
	}
	r := n.mustCollect(t, admin.GCOptions{All: true})
	got := strings.Split(names(r), ", ")
	slices.Sort(got)
	if want := []string{"log 1", "log 2"}; !slices.Equal(got, want) {
		t.Errorf("collected %q, want %q", got, want)
	}
	if left, err := n.files.KeptLogs(); err != nil || len(left) != 2 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestNothingIsCollectedBeforeItIsKnownWhatIsInWork(t *testing.T) {
	v := &adminView{Node: collector(t, newStore(img("a")), foreign, ran(1, "a", 1))}
	if _, err := v.GC(t.Context(), admin.GCOptions{All: true}); !errors.Is(err, admin.ErrState) {
		t.Errorf("%v", err)
	}
	v.session.takenOver()
	if r, err := v.GC(t.Context(), admin.GCOptions{All: true}); err != nil || len(r.Items) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Runs take up images and let go of them while rounds collect all that no run
// needs. An image that a run has found, or pulled, must be there when its
// container is made.
func TestNoImageIsTakenFromARunThatIsAboutToUseIt(t *testing.T) {
	store := newStore()
	n := collector(t, store, foreign)
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var runs, collections sync.WaitGroup
	begin := func(id int64, letter string) error {
		rec := open(ran(id, letter, 0), ledger.Received)
		if err := n.ledger.Insert(rec); err != nil {
			return err
		}
		n.mu.Lock()
		n.active[id] = &activeRun{id: id, rec: *rec}
		n.mu.Unlock()
		name := "reg.invalid/" + letter + "@" + digest(letter)
		err := n.using.use(ctx, name, func() error {
			_, err := n.ledger.Update(id, func(r *ledger.Record) error { r.Pinned = name; return nil })
			return err
		})
		if err != nil {
			return err
		}
		if _, err := store.Image(ctx, name); err != nil {
			store.mu.Lock()
			store.images[digest(letter)] = img(letter) // pulled
			store.mu.Unlock()
		}
		time.Sleep(time.Duration(id%3) * 100 * time.Microsecond)
		if _, err := store.Image(ctx, name); err != nil {
			return fmt.Errorf("run %d: the image was taken away before its container was made", id)
		}
		if _, err := n.ledger.Update(id, func(r *ledger.Record) error {
			r.State, r.FinishedAt = ledger.Done, time.Now()
			return nil
		}); err != nil {
			return err
		}
		n.mu.Lock()
		delete(n.active, id)
		n.mu.Unlock()
		return nil
	}
	for w := range int64(4) {
		runs.Go(func() {
			for i := range int64(25) {
				if err := begin(w*100+i, string("abc"[(w+i)%3])); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	for range 2 {
		collections.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := n.collect(ctx, admin.GCOptions{All: true}, func() {}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	runs.Wait()
	close(done)
	collections.Wait()
	if store.gone() == "" {
		t.Error("nothing was ever collected, so nothing was tried")
	}
}
