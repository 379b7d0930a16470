package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/node/admin"
	"github.com/v6node/v6node/node/admin/admintest"
)

// openTerminal returns a terminal of that size and what is behind its screen.
func openTerminal(t *testing.T, columns, rows uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return screen, tty
}

// onTerminal starts a command on a terminal.
func onTerminal(t *testing.T, cmd *exec.Cmd, columns, rows uint16) *bufio.Reader {
	t.Helper()
	screen, tty := openTerminal(t, columns, rows)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(screen)
}

func TestStatsOnATerminalRefreshInPlace(t *testing.T) {
	dir := admintest.Serve(t, hospital(), admin.ServerOptions{})
	cmd := program(t, "stats", "-i", "100ms", "--state-dir", dir)
	screen := onTerminal(t, cmd, 40, 25)
	for frame := range 3 {
		text, err := screen.ReadString('J')
		if frame == 0 && err == nil { // the screen is erased once, at the beginning
			if text != eraseScreen {
				t.Errorf("the screen begins with %q", text)
			}
			text, err = screen.ReadString('J')
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(text, "\r\n")
		if len(lines) != 3 || !strings.HasPrefix(lines[0], cursorHome+"RUN  TASK") || !strings.HasPrefix(lines[1], "103  52") || lines[2] != eraseBelow {
			t.Errorf("frame %d: %q", frame, text)
			continue
		}
		if n := len(strings.TrimSuffix(lines[1], eraseLineEnd)); n != 40 {
			t.Errorf("a line of %d columns on a terminal of 40: %q", n, lines[1])
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
}

func TestStatsElsewhereAreLinesWithOneHeader(t *testing.T) {
	s := hospital()
	usage, n := s.Usage, 0
	s.Usage = func() []admin.Usage {
		if n++; n == 4 { // it has ended
			return nil
		}
		return usage()
	}
	dir := admintest.Serve(t, s, admin.ServerOptions{})
	out, err := program(t, "stats", "103", "-i", "100ms", "--state-dir", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(string(out), "\n"); len(lines) != 5 || !strings.HasPrefix(lines[0], "RUN") || !strings.HasPrefix(lines[3], "103") {
		t.Errorf("%s", out)
	}
}

func TestALogDoesNotSteerTheTerminal(t *testing.T) {
	s := hospital()
	s.Lines[103] = []*admin.LogLine{{Stream: "stdout", Text: []byte("10%\r20%\tok \x1b]0;owned\x07 \xe2\x80\xae\x9b2J é")}}
	dir := admintest.Serve(t, s, admin.ServerOptions{})
	args := []string{"logs", "103", "--state-dir", dir}
	cmd := program(t, args...)
	screen := onTerminal(t, cmd, 80, 25)
	text, err := screen.ReadString('\xa9') // the end of é
	if err != nil {
		t.Fatal(err)
	}
	if want := "10%\r\n20%\tok \ufffd]0;owned\ufffd \ufffd\ufffd2J é"; text != want {
		t.Errorf("on a terminal: %q, want %q", text, want)
	}
	if _, err := io.Copy(io.Discard, screen); err == nil { // EIO when the last user of the terminal is gone
		t.Log("the terminal ended with EOF")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	out, err := program(t, args...).Output()
	if err != nil || string(out) != string(s.Lines[103][0].Text)+"\n" {
		t.Errorf("into a file: %q, %v", out, err)
	}
}
