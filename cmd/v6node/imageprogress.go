package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/v6node/v6node/sif"
)

const (
	barEvery  = 100 * time.Millisecond // on a terminal
	lineEvery = 5 * time.Second        // elsewhere
	barWidth  = 30
)

// progressLine shows on standard error how far a command is: a bar on a terminal, and
// lines now and then elsewhere, so that logs stay readable.
type progressLine struct {
	w     io.Writer // nil: shows nothing
	bar   bool
	now   func() time.Time
	every time.Duration

	mu    sync.Mutex
	stage sif.Stage
	began time.Time
	last  time.Time
	drawn bool
}

func newProgressLine(c *cli.Context) *progressLine {
	p := &progressLine{w: c.App.ErrWriter, now: time.Now, every: lineEvery}
	if c.Bool("quiet") {
		p.w = nil
		return p
	}
	if _, _, p.bar = terminal(c.App.ErrWriter); p.bar {
		p.every = barEvery
	}
	return p
}

func (p *progressLine) show(s sif.Progress) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if s.Stage != p.stage {
		p.clear()
		p.stage, p.began, p.last = s.Stage, now, now
		return // what takes no time is not worth a line
	}
	if now.Sub(p.last) < p.every {
		return
	}
	p.last = now
	text := fmt.Sprintf("%s: %s", s.Stage, humanSize(s.Done))
	if s.Total > 0 {
		share := min(float64(s.Done)/float64(s.Total), 1)
		text = fmt.Sprintf("%s: %s of %s, %.0f%%", s.Stage, humanSize(s.Done), humanSize(s.Total), 100*share)
		if p.bar {
			full := int(share * barWidth)
			text = fmt.Sprintf("[%s%s] %s", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), text)
		}
	}
	if took := now.Sub(p.began).Seconds(); took > 0 {
		text += fmt.Sprintf(", %s/s", humanSize(int64(float64(s.Done)/took)))
	}
	if p.bar {
		fmt.Fprintf(p.w, "\r%s\x1b[K", text)
		p.drawn = true
		return
	}
	fmt.Fprintln(p.w, text)
}

// end takes the bar away. More than once does nothing.
func (p *progressLine) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progressLine) clear() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}
