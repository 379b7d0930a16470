package sif_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/v6node/v6node/sif"
)

// contentStore is where a runtime keeps layers; it fails when it is told to.
type contentStore struct {
	mu                         sync.Mutex
	layers                     map[string][]byte
	open, committed            int
	failBegin, failWrite, full bool
}

type contentImport struct {
	store    *contentStore
	content  bytes.Buffer
	released bool
}

var errContent = errors.New("the content store is away")

func (s *contentStore) Import(context.Context) (sif.Imported, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failBegin {
		return nil, errContent
	}
	s.open++
	return &contentImport{store: s}, nil
}

func (i *contentImport) Write(p []byte) (int, error) {
	if i.store.failWrite {
		return 0, errContent
	}
	return i.content.Write(p)
}

func (i *contentImport) Commit(digest string) error {
	i.store.mu.Lock()
	defer i.store.mu.Unlock()
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(i.content.Bytes())); got != digest {
		return fmt.Errorf("the content is %s and not %s", got, digest)
	}
	if i.store.full {
		return errContent
	}
	i.store.committed++
	i.store.layers[digest] = i.content.Bytes()
	return nil
}

func (i *contentImport) Release(ctx context.Context) error {
	i.store.mu.Lock()
	defer i.store.mu.Unlock()
	if i.released {
		return errors.New("released twice")
	}
	i.released = true
	i.store.open--
	return ctx.Err()
}

func importing(s *contentStore) func(*sif.Options) {
	return func(o *sif.Options) { o.Importer = s }
}

func TestLayersGoStraightToTheRuntimesStore(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "algo.sif", algorithm(t))
	content := &contentStore{layers: map[string][]byte{}}
	s := openStore(t, dir, importing(content))
	for n, what := range []string{"converted for it", "converted long ago"} {
		p := ensure(t, s, "sif:algo")
		if p.Converted != (n == 0) {
			t.Errorf("%s: converted is %v", what, p.Converted)
		}
		if err := p.Prepare(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if content.committed != n+1 || content.open != len(p.Layers) || len(p.Layers) == 0 {
			t.Errorf("%s: %d commits, %d imports open, layers %v", what, content.committed, content.open, p.Layers)
		}
		for _, l := range p.Layers {
			if _, ok := content.layers[l]; !ok {
				t.Errorf("%s: the layer %s is not in the store", what, l)
			}
		}
		if n := layersIn(t, dir); n != 0 {
			t.Errorf("%s: %d layers are in the cache", what, n)
		}
		if err := p.Release(); err != nil || content.open != 0 {
			t.Errorf("%s: after the release %d imports are open, %v", what, content.open, err)
		}
	}
	// A runtime that asks all the same, because its copy is gone, gets them.
	p := ensure(t, s, "sif:algo")
	pulled(t, p)
	if err := p.Release(); err != nil || content.open != 0 {
		t.Errorf("%d imports are open, %v", content.open, err)
	}
	awaitNoLayers(t, dir)
}

func TestAStoreThatTakesNoLayersLeavesThemToThePull(t *testing.T) {
	for name, content := range map[string]*contentStore{
		"nothing can be begun": {failBegin: true}, "it dies half-way": {failWrite: true}, "it is full": {full: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			place(t, dir, "algo.sif", algorithm(t))
			content.layers = map[string][]byte{}
			s := openStore(t, dir, importing(content))
			p := ensure(t, s, "sif:algo")
			pulled(t, p)
			if err := p.Release(); err != nil || content.open != 0 || content.committed != 0 {
				t.Errorf("%d imports are open, %d committed, %v", content.open, content.committed, err)
			}
			awaitNoLayers(t, dir)
		})
	}
}

func TestWhatCannotBeConvertedIsNotImported(t *testing.T) {
	dir := t.TempDir()
	place(t, dir, "algo.sif", algorithm(t))
	content := &contentStore{layers: map[string][]byte{}}
	s := openStore(t, dir, importing(content))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Ensure(ctx, resolve(t, s, "sif:algo"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if content.open != 0 || content.committed != 0 {
		t.Errorf("%d imports are open, %d committed", content.open, content.committed)
	}
}
