package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func sourceDigest(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func always(*Record) bool { return true }

// record is what a conversion might return.
func record(source string, layers ...[]byte) *Record {
	r := &Record{Source: source, Manifest: []byte("manifest of " + source), Config: []byte("config"), ConvertedAt: time.Unix(0, 0).UTC()}
	r.Digest, r.ConfigDigest = digestOf(r.Manifest), digestOf(r.Config)
	for _, l := range layers {
		r.Layers = append(r.Layers, Layer{"tar", digestOf(l), int64(len(l))})
	}
	return r
}

// builder writes layers and counts how often.
func builder(source string, count *atomic.Int32, layers ...[]byte) func(*Work, *Record) (*Record, error) {
	return func(w *Work, _ *Record) (*Record, error) {
		count.Add(1)
		for n, l := range layers {
			f, err := w.Layer(n)
			if err != nil {
				return nil, err
			}
			if _, err := f.Write(l); err != nil {
				return nil, err
			}
		}
		return record(source, layers...), nil
	}
}

func open(t *testing.T, dir string, o Options) *Cache {
	t.Helper()
	c, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *Cache) mustMake(t *testing.T, n int, count *atomic.Int32, layers ...[]byte) (*Image, *Record) {
	t.Helper()
	i, r, err := c.Make(t.Context(), sourceDigest(n), always, builder(sourceDigest(n), count, layers...))
	if err != nil {
		t.Fatal(err)
	}
	return i, r
}

func read(t *testing.T, i *Image, n int, l Layer) string {
	t.Helper()
	f, err := i.OpenLayer(n, l)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func closeAll(t *testing.T, images ...*Image) {
	t.Helper()
	for _, i := range images {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	}
}

// leftovers are files that should not be there.
func leftovers(t *testing.T, dir, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*", "*", pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAnImageIsMadeOnceAndThenFound(t *testing.T) {
	c := open(t, t.TempDir(), Options{KeepLayers: true})
	var count atomic.Int32
	a, r := c.mustMake(t, 1, &count, []byte("one"), []byte("two"))
	b, again := c.mustMake(t, 1, &count)
	if count.Load() != 1 || again.Digest != r.Digest {
		t.Errorf("made %d times", count.Load())
	}
	if read(t, b, 0, r.Layers[0]) != "one" || read(t, b, 1, r.Layers[1]) != "two" {
		t.Error("other layers")
	}
	closeAll(t, a, b)
	i, _, err := c.Image(t.Context(), sourceDigest(1))
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, i)
	if _, _, err := c.Image(t.Context(), sourceDigest(2)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image that no one made: %v", err)
	}
}

func TestWhoeverAsksAtTheSameTimeSharesOneConversion(t *testing.T) {
	dir := t.TempDir()
	// Two caches on one directory stand for two processes.
	caches := []*Cache{open(t, dir, Options{}), open(t, dir, Options{})}
	var count atomic.Int32
	begun := make(chan struct{})
	finish := make(chan struct{})
	var wg sync.WaitGroup
	ask := func(c *Cache, build func(*Work, *Record) (*Record, error)) {
		wg.Go(func() {
			i, _, err := c.Make(t.Context(), sourceDigest(1), always, build)
			if err != nil {
				t.Error(err)
				return
			}
			closeAll(t, i)
		})
	}
	ask(caches[0], func(w *Work, r *Record) (*Record, error) {
		close(begun)
		<-finish
		return builder(sourceDigest(1), &count, []byte("layer"))(w, r)
	})
	<-begun
	for n := range 10 {
		ask(caches[n%2], builder(sourceDigest(1), &count, []byte("layer")))
	}
	close(finish)
	wg.Wait()
	if count.Load() != 1 {
		t.Errorf("converted %d times", count.Load())
	}
}

func TestWhenOneConversionFailsTheNextOneTries(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	begun, finish := make(chan struct{}), make(chan struct{})
	broken := errors.New("broken")
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _, err := c.Make(t.Context(), sourceDigest(1), always, func(w *Work, _ *Record) (*Record, error) {
			close(begun)
			<-finish
			f, err := w.Layer(0)
			if err == nil {
				_, err = f.Write([]byte("half"))
			}
			return nil, errors.Join(broken, err)
		})
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
	<-begun
	var count atomic.Int32
	wg.Go(func() {
		i, _ := c.mustMake(t, 1, &count, []byte("whole"))
		closeAll(t, i)
	})
	close(finish)
	wg.Wait()
	if count.Load() != 1 {
		t.Errorf("converted %d times", count.Load())
	}
	if left := leftovers(t, dir, tempPrefix+"*"); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestAFailedConversionLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	broken := errors.New("broken")
	if _, _, err := c.Make(t.Context(), sourceDigest(1), always, func(w *Work, _ *Record) (*Record, error) {
		_, err := w.Layer(0)
		return nil, errors.Join(broken, err)
	}); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	if left := leftovers(t, dir, "*"); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestWaitingForAConversionEndsWithTheContext(t *testing.T) {
	dir := t.TempDir()
	for _, other := range []*Cache{nil, open(t, dir, Options{})} { // the same process, another one
		c := open(t, dir, Options{})
		if other == nil {
			other = c
		}
		ctx, cancel := context.WithCancel(t.Context())
		i, _, err := c.Make(t.Context(), sourceDigest(1), func(*Record) bool { return false }, func(w *Work, _ *Record) (*Record, error) {
			cancel()
			if _, _, err := other.Make(ctx, sourceDigest(1), func(*Record) bool { return false }, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			return record(sourceDigest(1), []byte("x")), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		closeAll(t, i)
	}
}

func TestLayersGoWithTheirLastUserUnlessTheyAreKept(t *testing.T) {
	for _, keep := range []bool{false, true} {
		dir := t.TempDir()
		c := open(t, dir, Options{KeepLayers: keep})
		var count atomic.Int32
		a, r := c.mustMake(t, 1, &count, []byte("layer"))
		b, _ := c.mustMake(t, 1, &count)
		closeAll(t, a)
		if got := read(t, b, 0, r.Layers[0]); got != "layer" {
			t.Errorf("in use: %q", got)
		}
		closeAll(t, b)
		if left := leftovers(t, dir, layerPrefix+"*"); (len(left) > 0) != keep {
			t.Errorf("kept %v: %q", keep, left)
		}
		i, _, err := c.Image(t.Context(), sourceDigest(1))
		if err != nil {
			t.Fatalf("the record went too: %v", err)
		}
		closeAll(t, i)
	}
}

func TestLayersThatAreGoneAreMadeAgainOnce(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	var count, again atomic.Int32
	i, r := c.mustMake(t, 1, &count, []byte("one"), []byte("two"))
	closeAll(t, i)
	i, r2 := c.mustMake(t, 1, &count)
	defer closeAll(t, i)
	if _, err := i.OpenLayer(0, r2.Layers[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := i.MakeLayers(t.Context(), r, func(w *Work) error {
				_, err := builder(sourceDigest(1), &again, []byte("one"), []byte("two"))(w, nil)
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if count.Load() != 1 || again.Load() != 1 {
		t.Errorf("converted %d times, made again %d times", count.Load(), again.Load())
	}
	if read(t, i, 1, r.Layers[1]) != "two" {
		t.Error("another layer")
	}
}

func TestALayerOfAnotherLengthIsAsGoodAsNone(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{KeepLayers: true})
	var count atomic.Int32
	i, r := c.mustMake(t, 1, &count, []byte("layer"))
	defer closeAll(t, i)
	if err := os.Truncate(leftovers(t, dir, layerPrefix+"0")[0], 3); err != nil {
		t.Fatal(err)
	}
	if _, err := i.OpenLayer(0, r.Layers[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestARecordThatIsNotWholeIsAsGoodAsNone(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	var count atomic.Int32
	i, _ := c.mustMake(t, 1, &count, []byte("x"))
	closeAll(t, i)
	path := leftovers(t, dir, recordName)[0]
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{}", string(good[:len(good)/2]), strings.Replace(string(good), `"version":1`, `"version":0`, 1),
		strings.Replace(string(good), `"config":"`, `"config":"AAAA`, 1), strings.Replace(string(good), "000001", "000002", 1)} {
		if bad == string(good) {
			t.Fatal("nothing was changed")
		}
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		before := count.Load()
		i, _ := c.mustMake(t, 1, &count, []byte("x"))
		closeAll(t, i)
		if count.Load() != before+1 {
			t.Errorf("believed: %q", bad)
		}
	}
}

func TestARecordCanBeAddedTo(t *testing.T) {
	c := open(t, t.TempDir(), Options{KeepLayers: true})
	var count atomic.Int32
	i, _ := c.mustMake(t, 1, &count, []byte("x"))
	// Though someone uses the image.
	j, r, err := c.Make(t.Context(), sourceDigest(1), func(r *Record) bool { return r.Verified["keys"] != nil }, func(_ *Work, r *Record) (*Record, error) {
		r.Verified = map[string][]string{"keys": {"someone"}}
		return r, nil
	})
	if err != nil || r.Verified["keys"][0] != "someone" || read(t, j, 0, r.Layers[0]) != "x" {
		t.Errorf("%+v, %v", r, err)
	}
	closeAll(t, i, j)
}

func TestWhatACrashLeavesIsRemoved(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	var count atomic.Int32
	i, _ := c.mustMake(t, 1, &count, []byte("x"))
	entry := filepath.Dir(leftovers(t, dir, recordName)[0])
	for _, name := range []string{tempPrefix + "123", layerName(7)} {
		if err := os.WriteFile(filepath.Join(entry, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	half := filepath.Join(dir, imagesDir, strings.Repeat("b", 64))
	if err := errors.Join(os.Mkdir(half, 0o700), os.WriteFile(filepath.Join(half, tempPrefix+"1"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
	if left := leftovers(t, dir, tempPrefix+"*"); len(left) != 1 {
		t.Errorf("what someone uses was tidied, or what no one uses was not: %q", left)
	}
	closeAll(t, i)
	if left := append(leftovers(t, dir, tempPrefix+"*"), leftovers(t, dir, layerPrefix+"*")...); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
}

func TestTheLeastRecentlyUsedGoesFirstAndWhatIsInUseStays(t *testing.T) {
	c := open(t, t.TempDir(), Options{KeepLayers: true})
	var count atomic.Int32
	layer := make([]byte, 1<<20)
	var held *Image
	for n := 1; n <= 4; n++ {
		i, _ := c.mustMake(t, n, &count, layer)
		at := time.Unix(int64(1000*n), 0)
		if err := os.Chtimes(i.entry.path(lockName), at, at); err != nil {
			t.Fatal(err)
		}
		if n == 2 {
			held = i
			continue
		}
		closeAll(t, i)
	}
	i, _, err := c.Image(t.Context(), sourceDigest(1)) // used again
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, i)
	gone, err := c.Prune(2<<20 + 500_000)
	if err != nil || len(gone) != 2 || gone[0].Digest != sourceDigest(3) || gone[1].Digest != sourceDigest(4) {
		t.Errorf("%+v, %v", gone, err)
	}
	if _, err := c.Remove(sourceDigest(2)); !errors.Is(err, ErrInUse) {
		t.Errorf("removed while in use: %v", err)
	}
	closeAll(t, held)
	if n, err := c.Remove(sourceDigest(2)); err != nil || n < 1<<20 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := c.Remove(sourceDigest(2)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("twice: %v", err)
	}
	list, err := c.List()
	if err != nil || len(list) != 1 || list[0].Digest != sourceDigest(1) || list[0].Record == nil || list[0].Kind != "image" {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestWhatWasListedIsDiscardedUnlessItWasUsedMeanwhile(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	var count atomic.Int32
	for n := 1; n <= 3; n++ {
		i, _ := c.mustMake(t, n, &count, []byte("layer"))
		at := time.Unix(int64(1000*n), 0)
		if err := os.Chtimes(i.entry.path(lockName), at, at); err != nil {
			t.Fatal(err)
		}
		closeAll(t, i)
	}
	listed, err := c.List()
	if err != nil || len(listed) != 3 {
		t.Fatalf("%+v, %v", listed, err)
	}
	third, second, first := listed[0], listed[1], listed[2]
	held, _, err := c.Image(t.Context(), second.Digest)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := c.Image(t.Context(), third.Digest)
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, again)
	for _, u := range []struct {
		Usage
		want bool
	}{{first, true}, {first, false}, {second, false}, {third, false}} {
		if got, err := c.Discard(u.Usage); got != u.want || err != nil {
			t.Errorf("%s: discarded %v, %v, want %v", u.Digest, got, err, u.want)
		}
	}
	second.UsedAt = time.Now().Add(time.Hour)
	if got, err := c.Discard(second); got || err != nil {
		t.Errorf("in use: discarded %v, %v", got, err)
	}
	closeAll(t, held)
	if got, err := c.Discard(second); !got || err != nil {
		t.Errorf("after its use: discarded %v, %v", got, err)
	}
}

func TestTheCacheStaysWithinItsSize(t *testing.T) {
	c := open(t, t.TempDir(), Options{KeepLayers: true, MaxBytes: 3 << 20})
	var count atomic.Int32
	for n := range 6 {
		i, _ := c.mustMake(t, n, &count, make([]byte, 1<<20))
		closeAll(t, i)
	}
	list, err := c.List()
	var total int64
	for _, u := range list {
		total += u.Size
	}
	if err != nil || total > 3<<20 || len(list) != 2 {
		t.Errorf("%d entries with %d bytes, %v", len(list), total, err)
	}
}

func TestADownloadIsKeptAndGoesOnAfterAFailure(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	broken := errors.New("broken")
	write := func(text string, err error) func(*os.File) error {
		return func(f *os.File) error {
			_, werr := f.WriteString(text)
			return errors.Join(err, werr)
		}
	}
	if _, err := c.Download(t.Context(), sourceDigest(1), write("first ", broken)); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	for range 2 {
		f, err := c.Download(t.Context(), sourceDigest(1), func(f *os.File) error {
			if b, err := io.ReadAll(f); err != nil || string(b) != "first " {
				t.Errorf("%q, %v", b, err)
			}
			return write("second", nil)(f)
		})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(f); err != nil || string(b) != "first second" {
			t.Errorf("%q, %v", b, err)
		}
		f.Close()
	}
	if err := c.Forget(sourceDigest(1)); err != nil {
		t.Fatal(err)
	}
	if list, err := c.List(); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestTheDigestOfAFileIsRememberedForItsState(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	if _, ok := c.Known("state"); ok {
		t.Error("known before it was learnt")
	}
	if err := c.Learn("state", sourceDigest(1)); err != nil {
		t.Fatal(err)
	}
	if d, ok := open(t, dir, Options{}).Known("state"); !ok || d != sourceDigest(1) {
		t.Errorf("%s, %v", d, ok)
	}
	if _, ok := c.Known("other state"); ok {
		t.Error("another state is known")
	}
	for n := range maxFiles + 10 {
		if err := os.WriteFile(filepath.Join(dir, filesDir, fmt.Sprint(n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Learn("last", sourceDigest(2)); err != nil {
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(filepath.Join(dir, filesDir)); len(list) > maxFiles {
		t.Errorf("%d files are remembered", len(list))
	}
	if _, ok := c.Known("last"); !ok {
		t.Error("the latest was forgotten")
	}
}

func TestADigestCannotLeadOutOfTheCache(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	for _, d := range []string{"", "sha256:", "sha256:../../etc", "sha256:" + strings.Repeat("A", 64), "sha512:" + strings.Repeat("a", 64), sourceDigest(1) + "/x"} {
		if _, _, err := c.Image(t.Context(), d); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", d, err)
		}
		if _, err := c.Remove(d); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", d, err)
		}
	}
}

// A process that is killed while it converts leaves a cache in which the next one does.
func TestAProcessThatIsKilledWhileItConvertsHarmsNoOne(t *testing.T) {
	if dir := os.Getenv("V6NODE_TEST_CACHE"); dir != "" {
		c := open(t, dir, Options{})
		c.Make(context.Background(), sourceDigest(1), always, func(w *Work, _ *Record) (*Record, error) {
			f, err := w.Layer(0)
			if err != nil {
				return nil, err
			}
			f.Write(make([]byte, 1<<20))
			fmt.Println("converting")
			select {}
		})
		return
	}
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), "V6NODE_TEST_CACHE="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if b := make([]byte, 10); func() error { _, err := io.ReadFull(out, b); return err }() != nil || string(b) != "converting" {
		t.Fatalf("the child says %q", b)
	}
	c := open(t, dir, Options{})
	if _, err := c.Remove(sourceDigest(1)); !errors.Is(err, ErrInUse) {
		t.Errorf("what another process makes can be removed: %v", err)
	}
	done := make(chan struct{})
	var count atomic.Int32
	go func() {
		defer close(done)
		i, _ := c.mustMake(t, 1, &count, []byte("layer"))
		closeAll(t, i)
	}()
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	<-done
	if left := leftovers(t, dir, tempPrefix+"*"); count.Load() != 1 || len(left) > 0 {
		t.Errorf("converted %d times, left over: %q", count.Load(), left)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add([]byte(`{"version":1,"source":"` + sourceDigest(1) + `","layers":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, recordName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := (&entry{dir: dir}).readRecord(sourceDigest(1)); err == nil && !r.check(sourceDigest(1)) {
			t.Errorf("%+v", r)
		}
	})
}
