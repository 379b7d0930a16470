package standin

import (
	"bytes"
	"net/http"
)

const noBlobStore = "The large result store is not set to blob storage, result streaming is not available."

func getBlobStatus(c *call, _ http.ResponseWriter) *reply {
	return ok(object{"blob_store_enabled": c.s.opt.BlobStore})
}

// getBlob hands out a blob only through a run that names it as input or result.
func getBlob(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	id := c.r.PathValue("uuid")
	for _, r := range s.runs {
		if r.input != id && (r.result == nil || *r.result != id) {
			continue
		}
		if !s.maySee(c.who, r.task.collab) {
			return lacksPermission()
		}
		if !s.opt.BlobStore {
			return refuse(http.StatusNotImplemented, noBlobStore)
		}
		data, there := s.blobs[id]
		if !there {
			return refuse(http.StatusInternalServerError, "Error streaming result!")
		}
		return &reply{code: http.StatusOK, raw: data}
	}
	return refuse(http.StatusNotFound, "No run found with input or result id="+id)
}

func postBlob(c *call, w http.ResponseWriter) *reply {
	if !c.s.opt.BlobStore {
		return refuse(http.StatusNotImplemented, noBlobStore)
	}
	data := bytes.NewBuffer([]byte{})
	if _, err := data.ReadFrom(http.MaxBytesReader(w, c.r.Body, c.s.opt.MaxBody)); err != nil {
		return refuse(http.StatusInternalServerError, "Error uploading result!")
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.who.kind == kindContainer {
		if t := s.tasks[c.who.container.TaskID]; t == nil || Finished(t.status()) {
			return refuse(http.StatusForbidden, "Cannot upload blob for a sub-task of a completed task.")
		}
	}
	id := newUUID()
	s.blobs[id] = data.Bytes()
	return &reply{code: http.StatusCreated, body: object{"uuid": id}}
}
