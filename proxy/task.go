package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/v6node/v6node/proxy/e2e"
	"github.com/v6node/v6node/proxy/internal/b64"
	"github.com/v6node/v6node/proxy/internal/jsonstream"
)

// createTask is POST /task: where the collaboration is encrypted, the input for
// each organization is encrypted with its public key.
func (a *API) createTask(w *answer, r *http.Request) error {
	if err := unencoded(r); err != nil {
		return err
	}
	body := a.spool.new()
	defer body.Close()
	t := &taskBody{a: a, ctx: r.Context(), c: jsonstream.New(r.Body, body)}
	if err := t.rewrite(); err != nil {
		return clientJSON(err)
	}
	c := call{method: http.MethodPost, path: "/task", query: r.URL.RawQuery, header: outgoing(r)}
	c.header.Set("Content-Type", "application/json")
	c.setBody(body)
	resp, err := a.ask(r.Context(), c)
	if err != nil || resp.StatusCode >= 400 {
		// A key that was changed on the server may be the reason.
		a.keys.Forget(t.used...)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return a.relay(w, r, resp)
}

// unencoded refuses what cannot be encrypted for its receiver as it is.
func unencoded(r *http.Request) error {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return refuse(http.StatusUnsupportedMediaType, "Tasks and blobs must be sent without Content-Encoding.")
	}
	return nil
}

// clientJSON turns errors of the JSON that the algorithm sent into answers.
func clientJSON(err error) error {
	switch {
	case errors.Is(err, jsonstream.ErrSyntax):
		return refuse(http.StatusBadRequest, "The body of the request is "+err.Error()+".")
	case errors.Is(err, jsonstream.ErrTooLong):
		return refuse(http.StatusBadRequest, "The body of the request has a key or a number that is too long.")
	}
	return err
}

// taskBody copies the body of POST /task and encrypts the inputs in it.
type taskBody struct {
	a    *API
	ctx  context.Context
	c    *jsonstream.Copier
	used []int64 // organizations whose keys were asked for
	// holds is set when the request has a place to hold inputs in memory.
	holds bool
}

var errNoOrganizations = refuse(http.StatusBadRequest, "Organizations missing from input")

func (t *taskBody) rewrite() error {
	defer func() {
		if t.holds {
			<-t.a.hold
		}
	}()
	if b, err := t.c.Peek(); err != nil {
		return err
	} else if b != '{' {
		return refuse(http.StatusBadRequest, "The body of the request is not a JSON object.")
	}
	found := false
	err := t.c.Object(func(key string) error {
		if key != "organizations" {
			return t.c.Value()
		}
		if found {
			return refuse(http.StatusBadRequest, "The body of the request has organizations twice.")
		}
		if b, err := t.c.Peek(); err != nil {
			return err
		} else if b != '[' {
			return errNoOrganizations
		}
		return t.c.Array(func() error {
			found = true
			return t.organization()
		})
	})
	if err == nil && !found {
		return errNoOrganizations
	}
	if err != nil {
		return err
	}
	return t.c.End()
}

// organization copies one element of organizations.
func (t *taskBody) organization() error {
	b, err := t.c.Peek()
	if err != nil {
		return err
	}
	if b != '{' {
		return refuse(http.StatusBadRequest, "An element of organizations is not an object with id and input.")
	}
	if t.a.key == nil {
		return t.c.Value()
	}
	var (
		id              int64
		held            []byte // an input that came before its id
		hasID, hasInput bool
	)
	err = t.c.Object(func(key string) error {
		switch key {
		case "id":
			if hasID {
				return refuse(http.StatusBadRequest, "An element of organizations has its id twice.")
			}
			hasID = true
			text, err := t.c.Capture(32)
			if err == nil {
				id, err = strconv.ParseInt(string(text), 10, 64)
			}
			if err != nil || id <= 0 {
				if transport(err) {
					return err
				}
				return refuse(http.StatusBadRequest, "An element of organizations has an id that is not a number.")
			}
			if _, err := t.c.Write(text); err != nil || held == nil {
				return err
			}
			return t.late(id, held)
		case "input":
			if hasInput {
				return refuse(http.StatusBadRequest, "An element of organizations has its input twice.")
			}
			hasInput = true
			b, err := t.c.Peek()
			switch {
			case err != nil:
				return err
			case b == 'n':
				return t.c.Value()
			case b != '"':
				return refuse(http.StatusBadRequest, "An element of organizations has an input that is not a string of base64.")
			case hasID:
				return t.c.String(func(r io.Reader, w io.Writer) error { return t.encrypt(id, r, w) })
			}
			// All requests of a run together would hold gigabytes.
			if !t.holds {
				if err := t.a.acquire(t.ctx, t.a.hold, "too many requests at once with an input that stands before the id of its organization"); err != nil {
					return err
				}
				t.holds = true
			}
			held, err = t.c.Capture(t.a.lim.heldInput)
			if errors.Is(err, jsonstream.ErrTooLong) {
				return refuse(http.StatusBadRequest, fmt.Sprintf("An input longer than %d bytes must stand behind the id of its organization.", t.a.lim.heldInput))
			}
			return err
		}
		return t.c.Value()
	})
	if err == nil && hasInput && !hasID {
		return refuse(http.StatusBadRequest, "An element of organizations has an input and no id.")
	}
	return err
}

// transport reports whether err is about reading the body, not about the JSON
// in it.
func transport(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// late writes an input that came before its id.
func (t *taskBody) late(id int64, held []byte) error {
	var input string
	if err := json.Unmarshal(held, &input); err != nil {
		return fmt.Errorf("%w: a string with a mistake", jsonstream.ErrSyntax)
	}
	t.c.Extra("input")
	if _, err := t.c.Write([]byte{'"'}); err != nil {
		return err
	}
	if err := t.encrypt(id, strings.NewReader(input), t.c); err != nil {
		return err
	}
	_, err := t.c.Write([]byte{'"'})
	return err
}

// encrypt reads base64 from r and writes it encrypted for the organization. An
// input that is in the blob store, where putBlob has encrypted it, stays its name.
func (t *taskBody) encrypt(id int64, r io.Reader, w io.Writer) error {
	head, r, err := beginning(r)
	if err != nil {
		return err
	}
	if isUUID(head) {
		_, err := w.Write(head)
		return err
	}
	key, err := t.a.organizationKey(t.ctx, id)
	if err != nil {
		return err
	}
	t.used = append(t.used, id)
	enc, err := key.NewEncrypter(w)
	if err != nil {
		return err
	}
	if _, err := io.Copy(enc, b64.NewReader(r)); err != nil {
		if errors.Is(err, b64.ErrCorrupt) {
			return refuse(http.StatusBadRequest, fmt.Sprintf("The input for organization %d is not base64.", id))
		}
		return err
	}
	return enc.Close()
}

// organizationKey returns the public key of an organization.
func (a *API) organizationKey(ctx context.Context, id int64) (*e2e.PublicKey, error) {
	if id == a.run.OrganizationID {
		return a.key.Public(), nil
	}
	return a.keys.Get(ctx, id, func(ctx context.Context) (*e2e.PublicKey, error) {
		resp, err := a.ask(ctx, call{method: http.MethodGet, path: "/organization/" + strconv.FormatInt(id, 10)})
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 == 4 {
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf("The server does not show organization %d to this run (status %d), so no input can be encrypted for it.", id, resp.StatusCode))
		}
		if resp.StatusCode != http.StatusOK {
			return nil, &serverError{fmt.Errorf("organization %d: status %d", id, resp.StatusCode)}
		}
		var org struct {
			PublicKey *string `json:"public_key"`
		}
		if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&org); err != nil {
			return nil, fmt.Errorf("organization %d: %w (%w)", id, errOdd, err)
		}
		if org.PublicKey == nil || *org.PublicKey == "" {
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf("Organization %d has no public key on the server, so no input can be encrypted for it; its node uploads the key when it starts.", id))
		}
		key, err := e2e.ParsePublicKey(*org.PublicKey)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf("The public key of organization %d on the server cannot be used: %s.", id, err))
		}
		return key, nil
	})
}
