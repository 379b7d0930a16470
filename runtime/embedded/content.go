package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Content is the content store of a containerd: what images are made of, by
// digest, before it is unpacked. It is not part of CRI, so only a node with a
// containerd of its own may use it.
type Content struct{ client *client }

// OpenContent opens the content store of the containerd at an Endpoint.
func OpenContent(endpoint string) (*Content, error) {
	c, err := newClient(strings.TrimPrefix(endpoint, "unix://"))
	if err != nil {
		return nil, err
	}
	return &Content{c}, nil
}

// Close ends the connection.
func (c *Content) Close() error { return c.client.close() }

// Shed removes layers, by digest. Their images stay usable, for containers are
// made of what the layers were unpacked to; only an image whose snapshots were
// lost has to be pulled again. Meant for images that are as large again in the
// store, and can be had again from this machine. A layer that is not there is no
// error.
func (c *Content) Shed(ctx context.Context, layers []string) error {
	var errs []error
	for _, l := range layers {
		_, err := contentapi.NewContentClient(c.client.conn).Delete(inNamespace(ctx), &contentapi.DeleteContentRequest{Digest: l})
		if err != nil && status.Code(err) != codes.NotFound {
			errs = append(errs, fmt.Errorf("layer %s: %w", l, err))
		}
	}
	// The end of a lease, even of an empty one, can wait for the collection.
	id, err := c.client.lease(ctx, "shed")
	if err == nil {
		err = c.client.unlease(ctx, id, true)
	}
	if err = errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("remove layers from the content store of the node's own containerd: %w", err)
	}
	return nil
}

// Import is a layer on its way into the content store. It is for one goroutine.
type Import struct {
	content *Content
	lease   string
	stream  contentapi.Content_WriteClient
	cancel  context.CancelFunc
	buffer  []byte // a layer is written in many small pieces
	offset  int64  // of the buffer in the layer
	waiting int    // requests without an answer
	done    bool
}

const (
	importChunk = 2 << 20
	// importAhead is how many requests may be without an answer, so that the
	// writer need not wait for the disk of each.
	importAhead = 4
)

// Import begins one. ctx bounds all of it but Release.
func (c *Content) Import(ctx context.Context) (*Import, error) {
	lease, err := c.client.lease(ctx, "import")
	if err != nil {
		return nil, fmt.Errorf("begin to import a layer: %w", err)
	}
	own, cancel := context.WithCancel(ctx)
	stream, err := contentapi.NewContentClient(c.client.conn).Write(metadata.AppendToOutgoingContext(inNamespace(own), "containerd-lease", lease))
	if err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("begin to import a layer: %w", err), c.client.unlease(context.WithoutCancel(ctx), lease, false))
	}
	return &Import{content: c, lease: lease, stream: stream, cancel: cancel, buffer: make([]byte, 0, importChunk)}, nil
}

// Write implements io.Writer.
func (i *Import) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), importChunk-len(i.buffer))]
		i.buffer = append(i.buffer, part...)
		n, p = n+len(part), p[len(part):]
		if len(i.buffer) < importChunk {
			break
		}
		if err := i.send(contentapi.WriteAction_WRITE, "", importAhead); err != nil {
			return n, fmt.Errorf("import a layer: %w", err)
		}
	}
	return n, nil
}

// send sends what is buffered, and waits until no more than some requests are
// without an answer.
func (i *Import) send(action contentapi.WriteAction, digest string, ahead int) error {
	r := contentapi.WriteContentRequest{Action: action, Ref: i.lease, Offset: i.offset, Data: i.buffer, Expected: digest}
	i.offset += int64(len(i.buffer))
	if digest != "" {
		r.Total = i.offset
	}
	// The stream ends with the real error where Send only says EOF.
	if err := i.stream.Send(&r); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	i.buffer = i.buffer[:0] // a message is written out before Send returns
	for i.waiting++; i.waiting > ahead; i.waiting-- {
		if _, err := i.stream.Recv(); err != nil {
			return err
		}
	}
	return nil
}

// Commit ends the layer, whose digest containerd verifies. It stays in the store
// until Release, and afterwards as long as an image has it. One that is there
// already is no error.
func (i *Import) Commit(digest string) error {
	i.done = true
	err := i.send(contentapi.WriteAction_COMMIT, digest, 0)
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return fmt.Errorf("import the layer %s: %w", digest, err)
	}
	return nil
}

// Release ends the import, and gives up the layer if it was not committed. Call
// it once.
func (i *Import) Release(ctx context.Context) error {
	i.cancel()
	err := i.content.client.unlease(ctx, i.lease, false)
	if !i.done {
		_, abort := contentapi.NewContentClient(i.content.client.conn).Abort(inNamespace(ctx), &contentapi.AbortRequest{Ref: i.lease})
		if status.Code(abort) != codes.NotFound {
			err = errors.Join(err, abort)
		}
	}
	if err != nil {
		return fmt.Errorf("end the import of a layer: %w", err)
	}
	return nil
}
