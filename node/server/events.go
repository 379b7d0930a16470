package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/v6node/v6node/internal/socketio"
)

// wireID is an id in an event: a number, its text (some nodes send that), or nothing.
type wireID int64

func (w *wireID) UnmarshalJSON(b []byte) error {
	text := string(bytes.Trim(b, `"`))
	switch text {
	case "null", "None", "":
		*w = 0
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%.40s is not an id", b)
	}
	*w = wireID(n)
	return nil
}

// decodeEvent turns a socket event into what the node is told, nil when it does not concern the
// node. Fields that it does not know are left alone.
func decodeEvent(e socketio.Event, self *Identity) (*Event, error) {
	var arg json.RawMessage
	if len(e.Args) > 0 {
		arg = e.Args[0]
	}
	switch e.Name {
	case "sync":
		return &Event{Kind: Synced}, nil
	case "new_task":
		return decodeTask(arg)
	case "status_update", "algorithm_status_change":
		return decodeChange(arg)
	case "kill_containers":
		return decodeKill(arg, self)
	}
	return nil, nil
}

// loggedRun is the run of which the server passes a piece of the log on, 0 when it does not say so.
// What is in the piece is nothing to the node.
func loggedRun(e socketio.Event) int64 {
	var w struct {
		Run wireID `json:"run_id"`
	}
	if len(e.Args) == 0 || json.Unmarshal(e.Args[0], &w) != nil {
		return 0
	}
	return int64(w.Run)
}

func decodeTask(arg json.RawMessage) (*Event, error) {
	var w struct {
		ID     wireID `json:"id"`
		Parent wireID `json:"parent_id"`
	}
	if err := json.Unmarshal(arg, &w); err != nil {
		return nil, err
	}
	return &Event{Kind: NewTask, TaskID: int64(w.ID), ParentID: int64(w.Parent)}, nil
}

func decodeChange(arg json.RawMessage) (*Event, error) {
	var w struct {
		Status Status `json:"status"`
		Run    wireID `json:"run_id"`
		Task   wireID `json:"task_id"`
		Job    wireID `json:"job_id"`
		Parent wireID `json:"parent_id"`
		Node   wireID `json:"node_id"`
		Org    wireID `json:"organization_id"`
		Collab wireID `json:"collaboration_id"`
	}
	if err := json.Unmarshal(arg, &w); err != nil {
		return nil, err
	}
	return &Event{
		Kind: RunChanged, Status: w.Status,
		RunID: int64(w.Run), TaskID: int64(w.Task), JobID: int64(w.Job), ParentID: int64(w.Parent),
		NodeID: int64(w.Node), OrganizationID: int64(w.Org), CollaborationID: int64(w.Collab),
	}, nil
}

// decodeKill finds out what of this node an order concerns. The order goes to the whole
// collaboration. Without the key kill_list it means all runs; a list that is present, but empty
// or without any task or run, means none.
func decodeKill(arg json.RawMessage, self *Identity) (*Event, error) {
	var w struct {
		Node   wireID          `json:"node_id"`
		Collab wireID          `json:"collaboration_id"`
		List   json.RawMessage `json:"kill_list"`
	}
	if err := json.Unmarshal(arg, &w); err != nil {
		return nil, err
	}
	if int64(w.Collab) != self.CollaborationID || (w.Node != 0 && int64(w.Node) != self.NodeID) {
		return nil, nil
	}
	e := &Event{Kind: Kill, NodeID: int64(w.Node), CollaborationID: int64(w.Collab), Kill: &KillOrder{}}
	if w.List == nil {
		e.Kill.All = true
		return e, nil
	}
	var list []struct {
		Run  wireID `json:"run_id"`
		Task wireID `json:"task_id"`
		Org  wireID `json:"organization_id"`
	}
	if err := json.Unmarshal(w.List, &list); err != nil {
		return nil, err
	}
	for _, k := range list {
		if last := len(e.Kill.Tasks) - 1; k.Task != 0 && (last < 0 || e.Kill.Tasks[last] != int64(k.Task)) {
			e.Kill.Tasks = append(e.Kill.Tasks, int64(k.Task))
		}
		if int64(k.Org) == self.OrganizationID && (k.Run != 0 || k.Task != 0) {
			e.Kill.Runs = append(e.Kill.Runs, KillRun{RunID: int64(k.Run), TaskID: int64(k.Task)})
		}
	}
	if len(e.Kill.Tasks) == 0 && len(e.Kill.Runs) == 0 {
		return nil, nil
	}
	return e, nil
}
