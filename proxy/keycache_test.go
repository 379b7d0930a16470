package proxy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/v6node/v6node/proxy/e2e"
)

func TestManyWhoWantAKeyAskOnce(t *testing.T) {
	c := NewKeyCache(KeyCacheOptions{})
	var asked atomic.Int32
	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	get := func() {
		defer wg.Done()
		k, err := c.Get(bg, 2, func(context.Context) (*e2e.PublicKey, error) {
			if asked.Add(1) == 1 {
				close(started)
			}
			<-release
			return keyOf("b").Public(), nil
		})
		if err != nil || !k.Equal(keyOf("b").Public()) {
			t.Errorf("got %v", err)
		}
	}
	wg.Add(1)
	go get()
	<-started
	for range 20 {
		wg.Add(1)
		go get()
	}
	close(release)
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Fatalf("asked %d times", n)
	}
}

func TestKeysGetOldAndFailuresAreNotKept(t *testing.T) {
	c := NewKeyCache(KeyCacheOptions{TTL: time.Minute})
	now := time.Unix(1e9, 0)
	c.now = func() time.Time { return now }
	asked := 0
	var fail error
	get := func() error {
		_, err := c.Get(bg, 2, func(context.Context) (*e2e.PublicKey, error) {
			asked++
			return keyOf("b").Public(), fail
		})
		return err
	}
	step := func(name string, wantAsked int, wantErr error) {
		t.Helper()
		if err := get(); !errors.Is(err, wantErr) || asked != wantAsked {
			t.Fatalf("%s: asked %d times, %v", name, asked, err)
		}
	}
	fail = errors.New("away")
	step("failure", 1, fail)
	step("not kept", 2, fail)
	fail = nil
	step("success", 3, nil)
	step("kept", 3, nil)
	now = now.Add(59 * time.Second)
	step("young", 3, nil)
	now = now.Add(2 * time.Second)
	step("old", 4, nil)
	c.Forget(2, 7)
	step("forgotten", 5, nil)
}

func TestOneWhoGoesAwayDoesNotSpoilItForTheOthers(t *testing.T) {
	c := NewKeyCache(KeyCacheOptions{})
	ctx, cancel := context.WithCancel(bg)
	started := make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := c.Get(ctx, 2, func(ctx context.Context) (*e2e.PublicKey, error) {
			close(started)
			<-ctx.Done()
			return nil, errGone
		})
		first <- err
	}()
	<-started
	second := make(chan error, 1)
	go func() {
		_, err := c.Get(bg, 2, func(context.Context) (*e2e.PublicKey, error) { return keyOf("b").Public(), nil })
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, errGone) {
		t.Errorf("first: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("second: %v", err)
	}
}

func TestTheCacheDoesNotGrowWithoutEnd(t *testing.T) {
	c := NewKeyCache(KeyCacheOptions{Size: 10})
	for id := range int64(1000) {
		if _, err := c.Get(bg, id, func(context.Context) (*e2e.PublicKey, error) { return keyOf("b").Public(), nil }); err != nil {
			t.Fatal(err)
		}
		if len(c.keys) > 10 {
			t.Fatalf("%d keys after %d", len(c.keys), id)
		}
	}
}
