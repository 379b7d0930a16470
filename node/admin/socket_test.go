package admin_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admin/admintest"
)

func TestTheSocketIsTheOwnersAlone(t *testing.T) {
	dir := admintest.Serve(t, world(), admin.ServerOptions{})
	info, err := os.Stat(filepath.Join(dir, admin.SocketName))
	if err != nil || info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("besides the socket there is %v, %v", entries, err)
	}
}

func TestADirectoryInWhichOthersWriteIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen(dir); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
		t.Errorf("listen: %v", err)
	}
}

func TestANodeThatDiedLeavesNothingInTheWay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, admin.SocketName)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := errors.Join(stale.Close(), os.MkdirAll(filepath.Join(dir, ".admin.new", "half"), 0o700)); err != nil {
		t.Fatal(err)
	}
	client := admin.NewClient(dir)
	if _, err := client.Info(t.Context()); !errors.Is(err, admin.ErrDown) || !strings.Contains(err.Error(), path) {
		t.Errorf("a socket without a node: %v", err)
	}
	stop := admintest.ServeAt(t, dir, world(), admin.ServerOptions{})
	if _, err := client.Info(t.Context()); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("the end leaves %v, %v", entries, err)
	}
	if _, err := client.Info(t.Context()); !errors.Is(err, admin.ErrDown) || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("no socket: %v", err)
	}
}

func TestWhatIsNoSocketIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, admin.SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Listen(dir); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("listen: %v", err)
	}
}

func TestTheEndOfAnEarlierListenerLeavesTheSocketOfALater(t *testing.T) {
	dir := t.TempDir()
	first, err := admin.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := admin.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(second.Path()); err != nil {
		t.Error(err)
	}
}

func TestAStateDirectoryMayHaveALongName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 60))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	stop := admintest.ServeAt(t, dir, world(), admin.ServerOptions{})
	if _, err := admin.NewClient(dir).Info(t.Context()); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
