package standin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/v6node/v6node/internal/socketio"
)

const (
	allNodesRoom = "all_nodes"
	// outboxLength is how many events may wait for one socket. A client that reads
	// so slowly is disconnected.
	outboxLength = 4096
)

func collaborationRoom(id int64) string { return fmt.Sprintf("collaboration_%d", id) }

type message struct {
	name string
	args []any
}

// socket is one connected client. All but conn and out is guarded by the server's
// lock.
type socket struct {
	conn  *socketio.ServerConn
	out   chan message
	who   identity
	in    bool // identified: the token was good
	rooms []string
}

// serveSocket runs one Socket.IO connection to its end. A bad token does not refuse
// it: the client is connected and hears expired_token, invalid_token or nothing.
func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := socketio.Accept(w, r, socketio.AcceptOptions{
		PingInterval: s.opt.PingInterval, PingTimeout: s.opt.PingTimeout, MaxMessage: 64 << 20,
	})
	if err != nil {
		s.opt.Log.Debug("socket refused", "error", err)
		return
	}
	sock := &socket{conn: conn, out: make(chan message, outboxLength)}
	s.connect(sock, r.Header.Get("Authorization"))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		sock.send(s)
	}()
	for {
		e, err := conn.Read(s.ctx)
		if err != nil {
			break
		}
		s.receive(sock, e)
	}
	conn.Drop()
	s.disconnect(sock)
	<-sent
}

// send writes the socket's events in order until the connection ends.
func (sock *socket) send(s *Server) {
	for {
		select {
		case m := <-sock.out:
			if err := sock.conn.Emit(s.ctx, m.name, m.args...); err != nil {
				return
			}
		case <-sock.conn.Done():
			return
		}
	}
}

// push queues an event for one socket. Callers hold the lock.
func (sock *socket) push(name string, args ...any) {
	select {
	case sock.out <- message{name, args}:
	default:
		sock.conn.Freeze() // the client does not read: it will notice the silence
	}
}

// emit queues an event for everyone in a room. Callers hold the lock.
func (s *Server) emit(room, name string, args ...any) {
	if s.deaf {
		return
	}
	for sock := range s.sockets {
		if slices.Contains(sock.rooms, room) {
			sock.push(name, args...)
		}
	}
}

// connect identifies a new socket and lets it into its rooms, in the real server's
// order: sync first, then node-online to the rooms, then the rooms one by one.
func (s *Server) connect(sock *socket, header string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets[sock] = struct{}{}
	defer s.changedLocked()
	if s.silent {
		return
	}
	who, err := s.verify(header, "access")
	switch {
	case errors.Is(err, errTokenExpired):
		sock.push("expired_token")
		return
	case errors.Is(err, errTokenSignature):
		sock.push("invalid_token")
		return
	case err != nil || who.kind == kindContainer || s.organizationOf(who) == 0:
		return
	}
	sock.who, sock.in = who, true
	name := ""
	var rooms []string
	if who.kind == kindNode {
		n := s.nodes[who.id]
		name, n.online, n.lastSeen = n.name, true, time.Now()
		sock.push("sync")
		rooms = []string{allNodesRoom, collaborationRoom(n.collab), fmt.Sprintf("%s_organization_%d", collaborationRoom(n.collab), n.org)}
		s.announce("node-online", n, rooms)
	} else {
		name = s.users[who.id].name
		for id := range s.collabs {
			if s.maySee(who, id) {
				rooms = append(rooms, collaborationRoom(id))
			}
		}
	}
	for _, room := range rooms {
		sock.rooms = append(sock.rooms, room)
		if room != allNodesRoom {
			s.emit(room, "message", fmt.Sprintf("%s <%s> joined room <%s>", title(who.kind), name, room))
		}
	}
}

func title(kind string) string {
	if kind == kindNode {
		return "Node"
	}
	return "User"
}

// announce tells every room of a node that it came or went: who shares two rooms
// with it hears it twice.
func (s *Server) announce(event string, n *node, rooms []string) {
	for _, room := range rooms {
		s.emit(room, event, object{"id": n.id, "name": n.name, "org_id": n.org})
	}
}

// disconnect forgets a socket. A node's configuration rows go with it, and the node
// counts as offline even when another socket of it lives: its next ping mends that.
func (s *Server) disconnect(sock *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sockets, sock)
	rooms := sock.rooms
	sock.rooms = nil
	if sock.in && sock.who.kind == kindNode {
		n := s.nodes[sock.who.id]
		n.online, n.config = false, nil
		s.announce("node-offline", n, rooms)
	}
	s.changedLocked()
}

// receive handles one event of a client.
func (s *Server) receive(sock *socket, e socketio.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sock.in {
		return // the real server stumbles over it and goes on
	}
	ev := NodeEvent{At: time.Now(), NodeID: sock.who.id, Name: e.Name, Args: e.Args}
	if len(s.events) == eventLimit {
		s.events = append(s.events[:0:0], s.events[eventLimit/2:]...)
	}
	s.events = append(s.events, ev)
	defer s.changedLocked()
	if sock.who.kind != kindNode {
		return // only nodes may send updates
	}
	n := s.nodes[sock.who.id]
	switch e.Name {
	case "ping":
		n.online, n.lastSeen = true, time.Now()
	case "node_info_update":
		var info map[string]any
		if ev.decode(&info) {
			n.config = configRows(info)
		}
	case "algorithm_status_change":
		s.echoStatus(ev)
	case "algorithm_log":
		s.echoLog(ev)
	}
}

// echoStatus sends an algorithm's status to the whole collaboration, including the
// sender, with the job's number added.
func (s *Server) echoStatus(ev NodeEvent) {
	var d map[string]any
	if !ev.decode(&d) {
		return
	}
	id, _ := d["run_id"].(float64)
	collab, _ := d["collaboration_id"].(float64)
	r := s.runs[int64(id)]
	if r == nil {
		return
	}
	out := object{"job_id": r.task.job}
	for _, k := range []string{"status", "run_id", "task_id", "collaboration_id", "node_id", "organization_id", "parent_id"} {
		out[k] = d[k]
	}
	s.emit(collaborationRoom(int64(collab)), "algorithm_status_change", out)
}

// echoLog appends to the run's log, which the final PATCH overwrites, and sends the
// text to the whole collaboration, including the sender.
func (s *Server) echoLog(ev NodeEvent) {
	var d struct {
		CollabID int64  `json:"collaboration_id"`
		RunID    int64  `json:"run_id"`
		TaskID   int64  `json:"task_id"`
		Log      string `json:"log"`
	}
	if !ev.decode(&d) {
		return
	}
	r := s.runs[d.RunID]
	if r == nil {
		return
	}
	text := d.Log
	if r.log != nil && *r.log != "" {
		text = *r.log
		if text[len(text)-1] != '\n' {
			text += "\n"
		}
		text += d.Log
	}
	r.log = &text
	s.emit(collaborationRoom(d.CollabID), "algorithm_log", object{"run_id": d.RunID, "task_id": d.TaskID, "log": d.Log})
}

// configRows flattens a node_info_update into rows: lists give several rows of one
// key, objects give the rows of their members.
func configRows(info map[string]any) []configRow {
	var rows []configRow
	var add func(key string, v any)
	add = func(key string, v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				rows = append(rows, configRow{key, plainText(e)})
			}
		case map[string]any:
			for k, e := range v {
				add(k, e)
			}
		default:
			rows = append(rows, configRow{key, plainText(v)})
		}
	}
	for k, v := range info {
		add(k, v)
	}
	slices.SortStableFunc(rows, func(a, b configRow) int { return cmp.Compare(a.key, b.key) })
	return rows
}

// plainText writes a value as the server's text column holds it.
func plainText(v any) string {
	if text, ok := v.(string); ok {
		return text
	}
	data, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(data)
}

// watchPings sets nodes offline that have not pinged for OfflineAfter.
func (s *Server) watchPings() {
	tick := time.NewTicker(max(s.opt.OfflineAfter/10, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-tick.C:
			s.mu.Lock()
			for _, n := range s.nodes {
				if n.online && now.Sub(n.lastSeen) > s.opt.OfflineAfter {
					n.online = false
					s.changedLocked()
				}
			}
			s.mu.Unlock()
		}
	}
}
