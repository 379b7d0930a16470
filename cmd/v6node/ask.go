package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// errUnanswered ends a dialogue before everything is answered.
var errUnanswered = errors.New("the input ended before all questions were answered, and nothing was written")

// asker asks on a terminal.
type asker struct {
	tty *os.File
	in  *bufio.Reader
	out io.Writer
}

// newAsker reads answers from a terminal; nil where f is none. The context ends
// a question that waits.
func newAsker(ctx context.Context, f *os.File, out io.Writer) *asker {
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return &asker{tty: f, in: bufio.NewReader(&patient{ctx, f}), out: out}
}

// line asks for a line. An empty one is the standard, shown in brackets.
func (a *asker) line(question, standard string) (string, error) {
	if standard != "" {
		question += " [" + standard + "]"
	}
	fmt.Fprint(a.out, printable(question)+": ")
	text, err := a.in.ReadString('\n')
	switch {
	case errors.Is(err, io.EOF):
		err = errUnanswered
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("the dialogue was left, and nothing was written: %w", err)
	}
	if err != nil {
		fmt.Fprintln(a.out)
		return "", err
	}
	if text = strings.TrimSpace(text); text == "" {
		text = standard
	}
	return text, nil
}

// secret asks for a line that the terminal does not show.
func (a *asker) secret(question string) (text string, err error) {
	fd := int(a.tty.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", err
	}
	silent := *before
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return "", err
	}
	defer func() {
		fmt.Fprintln(a.out) // the one that the terminal did not show
		err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, before))
	}()
	return a.line(question, "")
}

// yes asks for a yes or a no.
func (a *asker) yes(question string, standard bool) (bool, error) {
	hint := " [y/N]"
	if standard {
		hint = " [Y/n]"
	}
	for {
		text, err := a.line(question+hint, "")
		if err != nil {
			return false, err
		}
		switch strings.ToLower(text) {
		case "":
			return standard, nil
		case "y", "yes":
			return true, nil
		case "n", "no":
			return false, nil
		}
		a.say("please answer y or n")
	}
}

// say tells something between questions.
func (a *asker) say(format string, args ...any) {
	fmt.Fprintln(a.out, "  "+printable(fmt.Sprintf(format, args...)))
}

// patient reads from a file until the context ends.
type patient struct {
	ctx context.Context
	f   *os.File
}

func (p *patient) Read(b []byte) (int, error) {
	var wake [2]int
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(wake[0])
	woken := make(chan struct{})
	stop := context.AfterFunc(p.ctx, func() { // the reading end then sees the end
		unix.Close(wake[1])
		close(woken)
	})
	defer func() {
		if stop() {
			unix.Close(wake[1])
			return
		}
		<-woken
	}()
	fds := []unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLIN}, {Fd: int32(wake[0]), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		if err := p.ctx.Err(); err != nil {
			return 0, err
		}
		if fds[0].Revents != 0 {
			n, err := p.f.Read(b)
			if errors.Is(err, unix.EIO) { // the terminal is gone
				err = io.EOF
			}
			return n, err
		}
	}
}
