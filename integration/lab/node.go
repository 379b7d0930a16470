package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"

	"github.com/v6node/v6node/proxy/e2e"
)

// NodeSpec says what a node's configuration holds.
type NodeSpec struct {
	Name   string
	APIKey string
	// Key is the organization's private key; nil for an open collaboration.
	Key *e2e.PrivateKey
	// Databases by label: paths of csv files.
	Databases map[string]string
	// Endpoint of an existing runtime; empty starts the node's own containerd.
	Endpoint string
	// Extra is laid over the configuration; nil removes a key.
	Extra map[string]any
	Args  []string
	// Program is an installed v6node to be used instead of the lab\'s; it finds
	// its bundle by itself.
	Program string
	Env     []string
	// As is the user who runs the node; nil is this process's.
	As *syscall.Credential
}

// Node is a v6node process.
type Node struct {
	Name     string
	Config   string // path of its configuration
	StateDir string
	LogFile  string
	id       int64
	lab      *Lab
	spec     NodeSpec
	cmd      *exec.Cmd
	ended    chan struct{}
	exit     error
}

// Configure writes a node's configuration and makes it known to the lab,
// without starting it.
func (l *Lab) Configure(s NodeSpec) (*Node, error) {
	dir := filepath.Join(l.Dir, s.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	n := &Node{
		Name: s.Name, Config: filepath.Join(dir, "node.yaml"), StateDir: filepath.Join(dir, "state"),
		LogFile: filepath.Join(dir, "node.log"), id: l.Server.NodeID(s.APIKey), lab: l, spec: s,
	}
	doc := map[string]any{
		"server_url": "http://127.0.0.1",
		"port":       l.Server.Port(),
		"api_path":   l.Server.APIPath(),
		"api_key":    s.APIKey,
		"state_dir":  n.StateDir,
		"encryption": map[string]any{"enabled": s.Key != nil},
	}
	if s.Key != nil {
		path := filepath.Join(dir, "private_key.pem")
		if err := os.WriteFile(path, s.Key.PEM(), 0o600); err != nil {
			return nil, err
		}
		doc["encryption"] = map[string]any{"enabled": true, "private_key": path}
	}
	var dbs []map[string]any
	for label, path := range s.Databases {
		dbs = append(dbs, map[string]any{"label": label, "uri": path, "type": "csv"})
	}
	if dbs != nil {
		doc["databases"] = dbs
	}
	for k, v := range s.Extra {
		if v == nil {
			delete(doc, k)
			continue
		}
		doc[k] = v
	}
	if dir, ok := doc["state_dir"].(string); ok {
		n.StateDir = dir
	}
	b, err := yaml.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return n, os.WriteFile(n.Config, b, 0o600)
}

// Start starts the process. Its log goes to LogFile, after what is there.
func (n *Node) Start() error {
	log, err := os.OpenFile(n.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	program, args := n.spec.Program, []string{"run", "--config", n.Config}
	if program == "" {
		program, args = n.lab.programs.V6node, append(args, "--bundle-dir", n.lab.programs.Bundle)
	}
	args = append(args, n.spec.Args...)
	if n.spec.Endpoint != "" {
		args = append(args, "--cri-endpoint", n.spec.Endpoint)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), n.spec.Env...)
	// Ctrl-C on the terminal is for the lab, which then stops its nodes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: n.spec.As}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	n.cmd, n.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		n.exit = errors.Join(cmd.Wait(), log.Close())
		close(ended)
	}(n.ended)
	return nil
}

// StartNode configures and starts a node and waits until the server has it
// online.
func (l *Lab) StartNode(ctx context.Context, s NodeSpec) (*Node, error) {
	n, err := l.Configure(s)
	if err != nil {
		return nil, err
	}
	if err := n.Start(); err != nil {
		return nil, err
	}
	return n, n.WaitOnline(ctx)
}

// WaitOnline returns when the server counts the node as online, or with the
// node's last words when it ends before.
func (n *Node) WaitOnline(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	online := make(chan error, 1)
	go func() { online <- n.lab.Server.WaitNode(ctx, n.id, true) }()
	select {
	case err := <-online:
		if err != nil {
			return fmt.Errorf("node %s does not come online: %w\n%s", n.Name, err, n.Log(20))
		}
		return nil
	case <-n.ended:
		return fmt.Errorf("node %s: %w: %w\n%s", n.Name, errEnded, n.exit, n.Log(20))
	}
}

// Wait returns when the process has ended, with its exit code.
func (n *Node) Wait(ctx context.Context) (int, error) {
	select {
	case <-n.ended:
		return n.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return -1, fmt.Errorf("node %s goes on: %w\n%s", n.Name, ctx.Err(), n.Log(20))
	}
}

// Stop asks the process to end and waits until it has; SIGKILL when ctx ends.
func (n *Node) Stop(ctx context.Context) error {
	if n.cmd == nil {
		return nil
	}
	select {
	case <-n.ended:
		return nil
	default:
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	code, err := n.Wait(ctx)
	if err != nil {
		n.Kill()
		return err
	}
	if code != 0 {
		return fmt.Errorf("node %s ended with exit code %d\n%s", n.Name, code, n.Log(20))
	}
	return nil
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (n *Node) Kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill() // it may have ended
		<-n.ended
	}
}

// PID of the process, 0 before the start.
func (n *Node) PID() int {
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// ID is the node's number at the server.
func (n *Node) ID() int64 { return n.id }

// Log returns the last lines of the node's log.
func (n *Node) Log(lines int) string {
	b, err := os.ReadFile(n.LogFile)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(string(bytes.TrimRight(b, "\n")), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
