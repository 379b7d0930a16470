package standin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

func (t *task) finishedAt() *time.Time {
	if t.status() != StatusCompleted {
		return nil
	}
	var last *time.Time
	for _, r := range t.runs {
		if r.finished != nil && (last == nil || r.finished.After(*last)) {
			last = r.finished
		}
	}
	return last
}

func getTasks(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	parent, job, collab := c.query("parent_id"), c.query("job_id"), c.query("collaboration_id")
	return paged(c, newestFirst(s.tasks, func(t *task) bool {
		return s.maySee(c.who, t.collab) && (parent == 0 || t.parent == parent) && (job == 0 || t.job == job) &&
			(collab == 0 || t.collab == collab)
	}), s.viewTask)
}

// seenTask returns the task in the path if the caller may see it. Callers hold the
// lock.
func (c *call) seenTask() (*task, *reply) {
	t := c.s.tasks[c.pathID()]
	if t == nil {
		return nil, refuse(http.StatusNotFound, fmt.Sprintf("Task id=%s not found", c.r.PathValue("id")))
	}
	if !c.s.maySee(c.who, t.collab) {
		return nil, lacksPermission()
	}
	return t, nil
}

func getTask(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t, refusal := c.seenTask()
	if refusal != nil {
		return refusal
	}
	return ok(s.viewTask(t))
}

// maxWait bounds how long a status request is held.
const maxWait = 30 * time.Second

// getTaskStatus answers at once, as the real server does, unless the request
// carries `Prefer: wait=SECONDS` (RFC 7240): then the answer is held until the task
// has finished or the time is over. Only the Researcher sends that; it keeps
// polling out of what benchmarks measure.
func getTaskStatus(c *call, _ http.ResponseWriter) *reply {
	s := c.s
	s.mu.Lock()
	t, refusal := c.seenTask()
	s.mu.Unlock()
	if refusal != nil {
		return refusal
	}
	var header http.Header
	if text, asked := strings.CutPrefix(c.r.Header.Get("Prefer"), "wait="); asked {
		if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
			header = http.Header{"Preference-Applied": {"wait"}}
			ctx, cancel := context.WithTimeout(c.r.Context(), min(time.Duration(seconds)*time.Second, maxWait))
			defer cancel()
			// The end of the time is no error: the status is told as it is.
			_ = s.wait(ctx, func() bool { return Finished(t.status()) })
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &reply{code: http.StatusOK, body: object{"status": t.status()}, header: header}
}

// taskOrder is the body of POST /task.
type taskOrder struct {
	name, description, image string
	collab, study, store     int64
	orgs                     []orgInput
	databases                []database
}

type orgInput struct {
	id    int64
	input json.RawMessage
}

func readTaskOrder(f fields) (*taskOrder, *reply) {
	if bad := f.allow("name", "description", "image", "collaboration_id", "study_id", "store_id", "server_url",
		"organizations", "databases"); bad != nil {
		return nil, bad
	}
	o := &taskOrder{}
	for key, v := range map[string]*string{"name": &o.name, "description": &o.description, "image": &o.image} {
		var bad *reply
		if *v, _, bad = f.text(key); bad != nil {
			return nil, bad
		}
	}
	if o.image == "" {
		return nil, incorrect("image", "Missing data for required field.")
	}
	for key, v := range map[string]*int64{"collaboration_id": &o.collab, "study_id": &o.study, "store_id": &o.store} {
		var bad *reply
		if *v, bad = f.number(key); bad != nil {
			return nil, bad
		}
	}
	if o.collab == 0 && o.study == 0 {
		return nil, incorrect("_schema", "Collaboration_id or study_id is required")
	}
	raw, present := f["organizations"]
	if !present {
		return nil, incorrect("organizations", "Missing data for required field.")
	}
	var orgs []fields
	if err := json.Unmarshal(raw, &orgs); err != nil || isNull(raw) {
		return nil, incorrect("organizations", "Not a valid list.")
	}
	for _, org := range orgs {
		id, bad := org.number("id")
		if bad != nil || id == 0 {
			return nil, incorrect("organizations", "Organization id is required for each organization")
		}
		o.orgs = append(o.orgs, orgInput{id: id, input: org["input"]})
	}
	if len(o.orgs) == 0 {
		return nil, incorrect("organizations", "At least one organization is required")
	}
	if raw, present := f["databases"]; present {
		var list []map[string]json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, incorrect("databases", "Not a valid list.")
		}
		for _, d := range list {
			var db database
			if err := json.Unmarshal(d["label"], &db.label); err != nil {
				return nil, refuse(http.StatusBadRequest, "Database label missing! The dictionary should contain a 'label' key")
			}
			delete(d, "label")
			parameters, err := json.Marshal(d)
			if err != nil {
				return nil, incorrect("databases", "Not a valid mapping.")
			}
			db.parameters = string(parameters)
			o.databases = append(o.databases, db)
		}
	}
	return o, nil
}

func postTask(c *call, w http.ResponseWriter) *reply {
	f, bad := c.body(w)
	if bad != nil {
		return bad
	}
	o, bad := readTaskOrder(f)
	if bad != nil {
		return bad
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	collab, refusal := s.checkTarget(c.who, o)
	if refusal != nil {
		return refusal
	}
	t := &task{
		name: o.name, description: o.description, image: o.image, collab: collab.id, study: o.study, store: o.store,
		initOrg: s.organizationOf(c.who), databases: o.databases, created: time.Now(),
	}
	if c.who.kind == kindContainer {
		if refusal := s.adopt(t, c.who.container); refusal != nil {
			return refusal
		}
	} else if st := s.stores[o.store]; o.store != 0 && st == nil {
		return refuse(http.StatusBadRequest, fmt.Sprintf("Algorithm store id=%d not found!", o.store))
	}
	inputs, refusal := s.checkInputs(o.orgs, collab)
	if refusal != nil {
		return refusal
	}
	t.id = take(&s.seq.task)
	if t.parent == 0 {
		t.job, t.initUser = take(&s.seq.job), c.who.id
	}
	s.tasks[t.id] = t
	for i, org := range o.orgs {
		r := &run{
			id: take(&s.seq.run), task: t, org: org.id, input: inputs[i], status: StatusPending,
			assigned: t.created, blob: s.opt.BlobStore,
		}
		s.runs[r.id] = r
		t.runs = append(t.runs, r)
		s.record(r, RunEvent{Kind: RunCreated})
	}
	s.emit(collaborationRoom(collab.id), "new_task", object{"id": t.id, "parent_id": orNil(t.parent)})
	return &reply{code: http.StatusCreated, body: s.viewTask(t)}
}

func orNil(id int64) any {
	if id == 0 {
		return nil
	}
	return id
}

// checkTarget finds the task's collaboration and checks that its organizations may
// be asked.
func (s *Server) checkTarget(who identity, o *taskOrder) (*collaboration, *reply) {
	if o.collab != 0 && s.collabs[o.collab] == nil {
		return nil, refuse(http.StatusNotFound, fmt.Sprintf("Collaboration id=%d not found!", o.collab))
	}
	var st *study
	if o.study != 0 {
		if st = s.studies[o.study]; st == nil {
			return nil, refuse(http.StatusNotFound, fmt.Sprintf("Study id=%d not found", o.study))
		}
		if o.collab != 0 && st.collab != o.collab {
			return nil, refuse(http.StatusBadRequest, fmt.Sprintf(
				"The study_id '%d' does not belong to the collaboration_id '%d' that is given.", o.study, o.collab))
		}
		o.collab = st.collab
	}
	c := s.collabs[o.collab]
	var missing []string
	for _, org := range o.orgs {
		if !slices.Contains(c.orgs, org.id) {
			return nil, refuse(http.StatusBadRequest, "At least one of the supplied organizations in not within the collaboration.")
		}
		if st != nil && !slices.Contains(st.orgs, org.id) {
			return nil, refuse(http.StatusBadRequest, "At least one of the supplied organizations in not within the specified study.")
		}
		if n := s.nodeOf(org.id, c.id); n == nil {
			missing = append(missing, strconv.FormatInt(org.id, 10))
		} else if who.kind == kindUser && s.refusesUser(n, who.id) {
			return nil, refuse(http.StatusBadRequest, "Cannot create this task because one of the nodes that"+
				" you are trying to send this task to does not allow you to create tasks.")
		}
	}
	if missing != nil {
		return nil, refuse(http.StatusBadRequest, "Cannot create this task because there are no nodes registered"+
			" for the following organization(s): "+strings.Join(missing, ", ")+".")
	}
	if !s.maySee(who, c.id) {
		return nil, refuse(http.StatusUnauthorized, "You can only create tasks for collaborations you are participating in!")
	}
	return c, nil
}

// refusesUser applies the policies that a node has shared: rows allowed_users and
// allowed_orgs, one of which must match when there are any.
func (s *Server) refusesUser(n *node, id int64) bool {
	u, limited := s.users[id], false
	for _, row := range n.config {
		switch row.key {
		case "allowed_users":
			limited = true
			if row.value == strconv.FormatInt(u.id, 10) {
				return false
			}
		case "allowed_orgs":
			limited = true
			if row.value == strconv.FormatInt(u.org, 10) || row.value == s.orgs[u.org].name {
				return false
			}
		}
	}
	return limited
}

// adopt makes a task the child of the task that a container token was issued for.
func (s *Server) adopt(t *task, sub *containerSubject) *reply {
	parent := s.tasks[sub.TaskID]
	// A suffix suffices, so that a registry may be written in front.
	if parent == nil || !strings.HasSuffix(t.image, sub.Image) || Finished(parent.status()) || sub.CollabID != t.collab {
		return refuse(http.StatusUnauthorized, "Container-token is not valid")
	}
	t.image, t.store = parent.image, parent.store
	t.parent, t.job, t.initUser = parent.id, parent.job, parent.initUser
	return nil
}

// checkInputs refuses readable input in an encrypted collaboration and unreadable
// input elsewhere; with a blob store an input must have the form of a UUID, whether
// there is such a blob or not.
func (s *Server) checkInputs(orgs []orgInput, c *collaboration) ([]string, *reply) {
	var inputs []string
	for _, org := range orgs {
		var text string
		if err := json.Unmarshal(org.input, &text); err != nil || isNull(org.input) {
			if s.opt.BlobStore {
				return nil, refuse(http.StatusBadRequest, "Your task's input cannot be parsed. Your input should be a UUID as a large result store has been configured.")
			}
			return nil, crash()
		}
		inputs = append(inputs, text)
		if s.opt.BlobStore {
			if !uuidForm.MatchString(text) {
				return nil, refuse(http.StatusBadRequest, "Your task's input cannot be parsed.")
			}
			continue
		}
		readable := false
		if strings.Count(text, "$") != 2 { // else it has the form of an encrypted message
			data, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return nil, crash()
			}
			readable = utf8.Valid(data)
		}
		switch {
		case c.encrypted && readable:
			return nil, refuse(http.StatusBadRequest, "Your collaboration requires encryption, but input is not encrypted! Please encrypt your input before sending it.")
		case !c.encrypted && !readable:
			return nil, refuse(http.StatusBadRequest, "Your task's input cannot be parsed. Your input should be a base64 encoded JSON string.")
		}
	}
	return inputs, nil
}
