package standin

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
)

const noBlobStore = "The large result store is not set to blob storage, result streaming is not available."

// blobStore keeps blobs as files, each named by its UUID. Its methods may be called from any goroutine, the
// Server's lock held or not.
type blobStore struct {
	dir string
	own bool // the directory is removed at Close
}

func newBlobStore(dir string) (*blobStore, error) {
	b := &blobStore{dir: dir, own: dir == ""}
	if b.own {
		var err error
		if b.dir, err = os.MkdirTemp("", "v6node-blobs-"); err != nil {
			return nil, fmt.Errorf("stand-in server: make the blob store: %w", err)
		}
		return b, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("stand-in server: make the blob store: %w", err)
	}
	return b, nil
}

func (b *blobStore) close() error {
	if !b.own {
		return nil
	}
	return os.RemoveAll(b.dir)
}

func (b *blobStore) path(id string) string { return filepath.Join(b.dir, id) }

// store keeps what r holds, all of it or nothing.
func (b *blobStore) store(r io.Reader) (id string, err error) {
	f, err := os.CreateTemp(b.dir, "upload-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
			return
		}
		err = os.Rename(f.Name(), b.path(id))
	}()
	_, err = io.Copy(f, r)
	return newUUID(), err
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// ids lists what is stored.
func (b *blobStore) ids() ([]string, error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if uuidForm.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// SetBlobStore turns the blob store on or off, as a server does that is started with another configuration.
// Runs stay what they are, and so do blobs.
func (s *Server) SetBlobStore(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opt.BlobStore = on
}

// LimitBlobs lets the blob store take so many bytes of each blob that comes from now on, and none that is
// longer; 0 is no limit.
func (s *Server) LimitBlobs(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobLimit = bytes
}

// Blobs returns the UUIDs of all blobs, in no order.
func (s *Server) Blobs() ([]string, error) { return s.blobs.ids() }

// BlobFile is the file that holds a blob. What is done to it is done to the blob.
func (s *Server) BlobFile(id string) string { return s.blobs.path(id) }

func getBlobStatus(c *call, _ http.ResponseWriter) *reply {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return ok(object{"blob_store_enabled": c.s.opt.BlobStore})
}

// mayReadBlob tells whether somebody may read a blob: through a run that names it as input or result, and
// nothing else. It returns nil, or what to answer.
func (s *Server) mayReadBlob(who identity, id string) *reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runs {
		if r.input != id && (r.result == nil || *r.result != id) {
			continue
		}
		if !s.maySee(who, r.task.collab) {
			return lacksPermission()
		}
		if !s.opt.BlobStore {
			return refuse(http.StatusNotImplemented, noBlobStore)
		}
		return nil
	}
	return refuse(http.StatusNotFound, "No run found with input or result id="+id)
}

// getBlob streams a blob. Like the real server it tells no length.
func getBlob(c *call, _ http.ResponseWriter) *reply {
	id := c.r.PathValue("uuid")
	if refusal := c.s.mayReadBlob(c.who, id); refusal != nil {
		return refusal
	}
	failed := refuse(http.StatusInternalServerError, "Error streaming result!")
	if !uuidForm.MatchString(id) {
		return failed
	}
	f, err := os.Open(c.s.blobs.path(id))
	if err != nil {
		return failed
	}
	return &reply{code: http.StatusOK, stream: f, header: http.Header{"Content-Disposition": {"attachment; filename=result_" + id + ".bin"}}}
}

func postBlob(c *call, w http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	on, limit := s.opt.BlobStore, s.blobLimit
	var t *task
	if c.who.kind == kindContainer {
		t = s.tasks[c.who.container.TaskID]
	}
	over := c.who.kind == kindContainer && (t == nil || Finished(t.status()))
	s.mu.Unlock()
	switch {
	case !on:
		return refuse(http.StatusNotImplemented, noBlobStore)
	case over:
		return refuse(http.StatusForbidden, "Cannot upload blob for a sub-task of a completed task.")
	}
	content := io.Reader(c.r.Body)
	if limit > 0 {
		content = http.MaxBytesReader(w, c.r.Body, limit)
	}
	id, err := s.blobs.store(content)
	if err != nil {
		s.opt.Log.Debug("a blob was not stored", "error", err)
		return refuse(http.StatusInternalServerError, "Error uploading result!")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changedLocked()
	return &reply{code: http.StatusCreated, body: object{"uuid": id}}
}
