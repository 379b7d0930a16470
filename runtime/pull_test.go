package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

const testRef = "example.org/a@" + testDigest

type pulled struct {
	image *Image
	err   error
}

func pullAsync(ctx context.Context, c *Client, ref string, o PullOptions) <-chan pulled {
	out := make(chan pulled, 1)
	go func() {
		i, err := c.PullImage(ctx, ref, nil, o)
		out <- pulled{i, err}
	}()
	return out
}

// waiting returns when n callers share the pull of ref.
func waiting(t *testing.T, f *fakeCRI, c *Client, ref string, n int) {
	t.Helper()
	f.until(t, fmt.Sprintf("%d callers", n), func() bool {
		f.touch()
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.pulls[ref] != nil && c.pulls[ref].waiters == n
	})
}

func TestCallersShareOnePullPerReference(t *testing.T) {
	f := newFake(t)
	release := make(chan struct{})
	f.pull = func(ctx context.Context, _ string) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.start(t)
	c := dialFake(t, f)
	var outs []<-chan pulled
	for range 5 {
		outs = append(outs, pullAsync(t.Context(), c, testRef, PullOptions{}))
	}
	other := pullAsync(t.Context(), c, "example.org/b@"+testDigest, PullOptions{})
	waiting(t, f, c, testRef, 5)
	close(release)
	for _, out := range append(outs, other) {
		if r := <-out; r.err != nil || r.image.ID == "" {
			t.Fatalf("got %+v, %v", r.image, r.err)
		}
	}
	if n := f.calls["PullImage"]; n != 2 {
		t.Errorf("%d pulls for 2 references", n)
	}
	if len(c.pulls) != 0 {
		t.Errorf("%d pulls are left", len(c.pulls))
	}
}

func TestACallerWhoLeavesDoesNotEndTheOthersPull(t *testing.T) {
	f := newFake(t)
	release, ended := make(chan struct{}), make(chan struct{}, 2)
	f.pull = func(ctx context.Context, _ string) error {
		defer func() { ended <- struct{}{} }()
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.start(t)
	c := dialFake(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	first := pullAsync(ctx, c, testRef, PullOptions{})
	waiting(t, f, c, testRef, 1)
	second := pullAsync(t.Context(), c, testRef, PullOptions{})
	waiting(t, f, c, testRef, 2)
	cancel()
	if r := <-first; !errors.Is(r.err, context.Canceled) {
		t.Fatalf("got %v", r.err)
	}
	select {
	case <-ended:
		t.Fatal("the pull ended with the first caller")
	default:
	}
	close(release)
	if r := <-second; r.err != nil {
		t.Fatal(r.err)
	}
}

func TestTheLastCallerToLeaveEndsThePull(t *testing.T) {
	f := newFake(t)
	ended := make(chan error, 1)
	f.pull = func(ctx context.Context, _ string) error {
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	f.start(t)
	c := dialFake(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	out := pullAsync(ctx, c, testRef, PullOptions{})
	f.await(t, "PullImage", 1)
	cancel()
	<-out
	<-ended
	// A new caller gets a new pull, not the ended one.
	f.pull = nil
	if r := <-pullAsync(t.Context(), c, testRef, PullOptions{}); r.err != nil {
		t.Fatal(r.err)
	}
}

func TestAPullWithoutProgressIsEnded(t *testing.T) {
	f := newFake(t)
	f.pull = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	f.start(t)
	c := dialFake(t, f)
	_, err := c.PullImage(t.Context(), testRef, nil, PullOptions{StallTimeout: 200 * time.Millisecond})
	if !errors.Is(err, ErrPullStalled) {
		t.Fatalf("got %v", err)
	}
}

func TestAPullThatMovesOutlivesTheStallTimeout(t *testing.T) {
	f := newFake(t)
	const stall = 300 * time.Millisecond
	var n atomic.Uint64
	f.fsBytes = func() uint64 { return n.Add(1000) }
	f.pull = func(ctx context.Context, _ string) error {
		select {
		case <-time.After(4 * stall): // the duration is what is tested
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.start(t)
	c := dialFake(t, f)
	var told atomic.Int64
	_, err := c.PullImage(t.Context(), testRef, nil, PullOptions{StallTimeout: stall, Progress: func(uint64) { told.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	if told.Load() < 2 {
		t.Errorf("progress was told %d times", told.Load())
	}
}

func TestAnImageWithAnotherDigestIsRefused(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	other := "example.org/a@sha256:" + strings.Repeat("f", 64)
	f.pull = func(context.Context, string) error { return nil }
	if _, err := c.PullImage(t.Context(), other, nil, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.images[testRef] = f.images[other] // RepoDigests names the other one
	f.mu.Unlock()
	image, err := c.pulled(t.Context(), "pull", testRef, nil, nil, false, 0)
	if !errors.Is(err, ErrImageNotFound) || image != nil {
		t.Fatalf("got %v, %v", image, err)
	}
}

func TestCredentialsReachTheRuntime(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	if _, err := c.PullImage(t.Context(), testRef, &Auth{Username: "u", Password: "p"}, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if a := f.pulls[0].Auth; a.Username != "u" || a.Password != "p" {
		t.Errorf("got %v", a)
	}
}

func TestCloseEndsPulls(t *testing.T) {
	f := newFake(t)
	f.pull = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
	f.start(t)
	c := dialFake(t, f)
	out := pullAsync(t.Context(), c, testRef, PullOptions{})
	f.await(t, "PullImage", 1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-out; !errors.Is(r.err, ErrClosed) {
		t.Fatalf("got %v", r.err)
	}
	if _, err := c.PullImage(t.Context(), testRef, nil, PullOptions{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
}

func TestImageLookup(t *testing.T) {
	f := newFake(t)
	f.start(t)
	c := dialFake(t, f)
	if _, err := c.Image(t.Context(), testRef); !errors.Is(err, ErrImageNotFound) {
		t.Fatalf("got %v", err)
	}
	if _, err := c.PullImage(t.Context(), testRef, nil, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if i, err := c.Image(t.Context(), testRef); err != nil || i.Size != 3 {
		t.Fatalf("got %+v, %v", i, err)
	}
	if all, err := c.ListImages(t.Context()); err != nil || len(all) != 1 {
		t.Fatalf("got %v, %v", all, err)
	}
	for range 2 {
		if err := c.RemoveImage(t.Context(), testRef); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Image(t.Context(), testRef); !errors.Is(err, ErrImageNotFound) {
		t.Fatalf("got %v", err)
	}
}

func TestAnImageThatTheRuntimeKeepsForAContainerIsInUse(t *testing.T) {
	f := newFake(t)
	f.keepsImages = "delete image: image used by 5e61bf: image is in use by a container: consider listing external containers and force-removing image"
	f.start(t)
	if err := dialFake(t, f).RemoveImage(t.Context(), testRef); !errors.Is(err, ErrImageInUse) {
		t.Errorf("got %v", err)
	}
}

func TestPullErrorsAreKnownByTheRuntimesWords(t *testing.T) {
	for _, tc := range []struct {
		code codes.Code
		text string
		kind error
	}{
		// containerd
		{codes.NotFound, `failed to pull and unpack image "docker.io/library/denied:1": failed to resolve reference "docker.io/library/denied:1": docker.io/library/denied:1: not found`, ErrImageNotFound},
		{codes.NotFound, `failed to pull and unpack image "h/a": no match for platform in manifest: not found`, ErrWrongPlatform},
		{codes.Unknown, `failed to resolve reference "docker.io/library/x:latest": pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed`, ErrRegistryDenied},
		{codes.Unknown, `failed to resolve reference "h/x": failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://h/token: 401 Unauthorized`, ErrRegistryDenied},
		{codes.Unknown, `failed to resolve reference "h/x": unexpected status from HEAD request to https://h/v2/x/manifests/1: 403 Forbidden`, ErrRegistryDenied},
		{codes.Unknown, `failed to resolve reference "h:1/x": failed to do request: Head "https://h:1/v2/x/manifests/1": dial tcp 127.0.0.1:1: connect: connection refused`, ErrRegistryUnreachable},
		{codes.Unknown, `failed to resolve reference "nowhere/x": failed to do request: Head "https://nowhere/v2/x": dial tcp: lookup nowhere on 127.0.0.53:53: no such host`, ErrRegistryUnreachable},
		{codes.Unknown, `failed to do request: Head "https://h/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority`, ErrRegistryUnreachable},
		{codes.Unknown, `failed to do request: Head "https://h/v2/": http: server gave HTTP response to HTTPS client`, ErrRegistryUnreachable},
		{codes.Unknown, `unexpected status from HEAD request to https://h/v2/not%20found/manifests/1: 503 Service Unavailable`, ErrRegistryUnreachable},
		{codes.Unknown, `unexpected status from GET request to https://h/v2/a/manifests/1: 429 Too Many Requests toomanyrequests: You have reached your limit`, ErrRegistryUnreachable},
		{codes.Unknown, `failed to extract layer sha256:1: write /var/lib/containerd/x: no space left on device`, ErrNoSpace},
		{codes.Unknown, `failed to extract layer sha256:1: write /var/lib/containerd/x: read-only file system`, ErrReadOnly},
		{codes.Canceled, `failed to pull and unpack image "h/a": failed to copy: context canceled`, ErrPullStalled},
		{codes.InvalidArgument, `failed to parse image reference "A B": invalid reference format`, ErrInvalid},
		// CRI-O
		{codes.Unknown, `initializing source docker://h/a:1: reading manifest 1 in h/a: manifest unknown`, ErrImageNotFound},
		{codes.Unknown, `initializing source docker://h/a:1: reading manifest 1 in h/a: requested access to the resource is denied`, ErrRegistryDenied},
		{codes.Unknown, `unable to retrieve auth token: invalid username/password: unauthorized: authentication required`, ErrRegistryDenied},
		{codes.Unknown, `choosing image instance: no image found in image index for architecture "amd64", variant "", OS "linux"`, ErrWrongPlatform},
		{codes.Unknown, `initializing source docker://h/a:1: pinging container registry h: Get "https://h/v2/": dial tcp 10.0.0.1:443: i/o timeout`, ErrRegistryUnreachable},
		{codes.Unavailable, `RegistryUnavailable: pinging container registry h: Get "https://h/v2/": dial tcp: connection refused`, ErrRegistryUnreachable},
		// the runtime itself
		{codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial unix /x: connect: no such file or directory"`, ErrNotReady},
		{codes.NotFound, `something new`, ErrImageNotFound},
		{codes.Internal, `something new`, nil},
	} {
		err := pullError("pull the image", "docker.io/library/denied:1", status.Error(tc.code, tc.text))
		var e *Error
		if !errors.As(err, &e) || e.Kind != tc.kind {
			t.Errorf("%q: got the kind %v, want %v", tc.text, e.Kind, tc.kind)
		}
	}
}

func TestProtobufFieldsAreTakenApartAndBadOnesRefused(t *testing.T) {
	var msg []byte
	msg = protowire.AppendTag(msg, 3, protowire.BytesType)
	msg = protowire.AppendString(msg, "layer-1")
	msg = protowire.AppendTag(msg, 4, protowire.VarintType)
	msg = protowire.AppendVarint(msg, 77)
	msg = protowire.AppendTag(msg, 9, protowire.Fixed64Type)
	msg = protowire.AppendFixed64(msg, 1)
	got := map[protowire.Number]string{}
	err := eachField(msg, func(num protowire.Number, b []byte, n uint64) error {
		got[num] = fmt.Sprintf("%s/%d", b, n)
		return nil
	})
	if err != nil || got[3] != "layer-1/0" || got[4] != "/77" || len(got) != 3 {
		t.Errorf("got %v, %v", got, err)
	}
	for n := range msg {
		if n == 0 || n == 9 || n == 11 {
			continue // whole fields
		}
		if eachField(msg[:n], func(protowire.Number, []byte, uint64) error { return nil }) == nil {
			t.Errorf("a message cut at %d is accepted", n)
		}
	}
}

func TestAPullThatSomebodyElseHasEndedIsBegunAgain(t *testing.T) {
	f := newFake(t)
	calls := 0
	f.pull = func(context.Context, string) error {
		if calls++; calls < 3 {
			return status.Error(codes.Unknown, "parsing image configuration: context canceled")
		}
		return nil
	}
	f.start(t)
	c := dialFake(t, f)
	if _, err := c.PullImage(t.Context(), "example.org/a@"+testDigest, nil, PullOptions{}); err != nil || calls != 3 {
		t.Errorf("after %d calls: %v", calls, err)
	}
}
