package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/v6node/v6node/integration/lab"
	"github.com/v6node/v6node/integration/standin"
	"github.com/v6node/v6node/proxy/e2e"
)

// blobSize is how much measurement (i) moves each way, in bytes.
const blobSize = 2 << 30

// blobs measures (i): an input of 2 GiB in the server's blob store that an algorithm returns as it is, and the same
// through the proxy of an algorithm that sends it to a subtask, all in an encrypted collaboration. The memory
// that the node takes for it should not depend on the size, so a small one goes before.
func (b *bench) blobs(ctx context.Context) (err error) {
	l, endpoint, end, err := b.open(ctx, "blobs")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	l.Server.SetBlobStore(true)
	key, err := e2e.GeneratePrivateKey(4096)
	if err != nil {
		return err
	}
	w := &world{lab: l, cri: endpoint, org: l.Server.AddOrganization("bench")}
	w.collab = l.Server.AddCollaboration("bench", true, w.org)
	if w.image, err = l.Push("bench/testalgo", b.programs.Algorithm("testalgo")); err != nil {
		return err
	}
	w.node, err = l.StartNode(ctx, lab.NodeSpec{
		Name: "blobs", APIKey: l.Server.AddNode(w.org, w.collab), Endpoint: endpoint, Key: key,
		Extra: map[string]any{"limits": map[string]any{"output_size": "4g"}},
	})
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, w.node.Stop(end))
	}()
	l.Server.AddUser(w.org, "user", "password")
	if w.user, err = standin.NewResearcher(ctx, l.Server.URL(), "user", "password", key); err != nil {
		return err
	}
	defer w.user.Close()
	size := int64(blobSize)
	if b.quick {
		size /= 8
	}
	for _, m := range []struct {
		what string
		move func(context.Context, *e2e.PrivateKey, int64) error
	}{{"the node", w.mirror}, {"its proxy, and the node", w.delegate}} {
		if err := m.move(ctx, key, 1<<20); err != nil { // fetches the image, and warms the node up
			return err
		}
		small, err := memory(w.node.PID())
		if err != nil {
			return err
		}
		// Makes the kernel's peak begin anew.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", w.node.PID()), []byte("5"), 0); err != nil {
			return err
		}
		began := time.Now()
		if err := m.move(ctx, key, size); err != nil {
			return err
		}
		took := time.Since(began)
		peak, err := peakMemory(w.node.PID())
		if err != nil {
			return err
		}
		mib := float64(size >> 20)
		b.add("i", fmt.Sprintf("%.0f MiB through %s, there and back", mib, m.what), took.Seconds(), "s",
			fmt.Sprintf("%.0f MiB/s, from the task to its result, researcher and server included", 2*mib/took.Seconds()))
		b.add("i", "  node, peak resident memory meanwhile", peak, "MiB",
			fmt.Sprintf("%.2f of the %.1f after 1 MiB, %.3f of what passed each way; aim: under 60", peak/small, small, peak/mib))
	}
	return nil
}

// blobInput is an input of the method mirror with so many bytes in it.
func blobInput(size int64) io.Reader {
	return io.MultiReader(strings.NewReader(`{"method":"mirror","kwargs":{"data":"`), io.LimitReader(zeros{}, size), strings.NewReader(`"}}`))
}

// mirror sends an input, and compares the result with it.
func (w *world) mirror(ctx context.Context, key *e2e.PrivateKey, size int64) error {
	input, err := w.user.StoreBlob(ctx, key.Public(), func() io.Reader { return blobInput(size) })
	if err != nil {
		return err
	}
	result, err := w.completed(ctx, standin.TaskSpec{Method: "mirror", RawInputs: map[int64]string{w.org: input}})
	if err != nil {
		return err
	}
	want, got := sha256.New(), sha256.New()
	if _, err := io.Copy(want, blobInput(size)); err != nil {
		return err
	}
	if err := w.user.ReadBlob(ctx, result, true, got); err != nil {
		return err
	}
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		return errors.New("the result is not the input")
	}
	return w.forget(input, result)
}

// delegate lets an algorithm do the same with a subtask of its own.
func (w *world) delegate(ctx context.Context, _ *e2e.PrivateKey, size int64) error {
	result, err := w.completed(ctx, standin.TaskSpec{Method: "delegate", Kwargs: map[string]any{"bytes": size, "organizations": []int64{w.org}}})
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := w.user.ReadBlob(ctx, result, true, &text); err != nil {
		return err
	}
	_, sent, _ := strings.Cut(text.String(), `"sent":"`)
	if len(sent) < 64 || strings.Count(text.String(), sent[:64]) != 2 {
		return fmt.Errorf("the subtask's result is not its input: %s", text.String())
	}
	all, err := w.lab.Server.Blobs()
	if err != nil {
		return err
	}
	return w.forget(all...)
}

// completed runs a task on the node and returns the name of its result.
func (w *world) completed(ctx context.Context, t standin.TaskSpec) (string, error) {
	t.Name, t.Image, t.Collaboration, t.Organizations = "bench", w.image.Pinned, w.collab, []int64{w.org}
	id, err := w.user.CreateTask(ctx, t)
	if err != nil {
		return "", err
	}
	status, err := w.lab.Server.WaitTask(ctx, id)
	run := w.lab.Server.RunsOf(id)[0]
	if err != nil || status != standin.StatusCompleted || run.Result == nil {
		return "", fmt.Errorf("task %d ended as %q: %w\n%s", id, status, err, w.node.Log(10))
	}
	return *run.Result, nil
}

// forget makes room on the disk.
func (w *world) forget(blobs ...string) error {
	var errs []error
	for _, id := range blobs {
		errs = append(errs, os.Remove(w.lab.Server.BlobFile(id)))
	}
	return errors.Join(errs...)
}
