package config

import (
	"time"

	"github.com/v6node/v6node/node/collect"
)

// GC is what the node removes by itself to make room.
type GC struct {
	Interval time.Duration // between two collections; 0: only MinFree and v6node gc collect
	// MinFree is how many bytes the file systems of the node are to have free;
	// collect.DefaultFree depends on their size, and 0 does not look.
	MinFree int64
	Images  ImagesGC
	// LogAge is for how long the log of a run stays after its end, and LogSize for how many
	// bytes of them together; 0 is for ever, and any size.
	LogAge  time.Duration
	LogSize int64
	// ScratchAge is for how long a job's /mnt/tmp stays after its last run, and
	// RecordAge for how long the ledger remembers a run.
	ScratchAge, RecordAge time.Duration
}

// ImagesGC is for how long images stay that no run needs; 0 is for ever, and any
// size.
type ImagesGC struct {
	MaxAge  time.Duration
	MaxSize int64
	Keep    []collect.Pin
}

const (
	day = 24 * time.Hour

	defaultGCInterval = time.Hour
	defaultImagesAge  = 30 * day
	defaultImagesSize = 50 << 30
	defaultScratchAge = day
	defaultLogAge     = 7 * day
	defaultLogSize    = 1 << 30
	defaultRecordAge  = 90 * day
	// leastRecordAge is far longer than a server keeps a finished run open: a
	// forgotten run that is offered again would run again.
	leastRecordAge = 7 * day
	longest        = 10 * 365 * day
)

func (d *decoder) gc(s *section, c *Config) {
	v, _ := s.get("gc")
	g := d.section(v, "gc")
	defer g.done()
	c.GC = GC{
		Interval: defaultGCInterval, MinFree: collect.DefaultFree, ScratchAge: defaultScratchAge, RecordAge: defaultRecordAge,
		LogAge: defaultLogAge, LogSize: defaultLogSize,
		Images: ImagesGC{MaxAge: defaultImagesAge, MaxSize: defaultImagesSize},
	}
	at, line := g.get("interval")
	if g.duration("interval", &c.GC.Interval, 0, longest) && c.GC.Interval > 0 && c.GC.Interval < time.Minute {
		d.fail(max(line, at.line), "gc.interval", "gc.interval: %s is less than a minute; write 0 to collect by hand only", clip(at.text))
	}
	g.size("min_free", &c.GC.MinFree, 0)

	v, _ = g.get("images")
	i := d.section(v, "gc.images")
	i.duration("max_age", &c.GC.Images.MaxAge, 0, longest)
	i.size("max_size", &c.GC.Images.MaxSize, 0)
	keep, _ := i.texts("keep")
	for _, k := range keep {
		pin, err := collect.ParsePin(k.text)
		if err != nil {
			d.fail(k.line, "gc.images.keep", "gc.images.keep: %v", err)
			continue
		}
		c.GC.Images.Keep = append(c.GC.Images.Keep, pin)
	}
	i.done()

	v, _ = g.get("logs")
	l := d.section(v, "gc.logs")
	l.duration("max_age", &c.GC.LogAge, 0, longest)
	l.size("max_size", &c.GC.LogSize, 0)
	l.done()
	v, _ = g.get("scratch")
	w := d.section(v, "gc.scratch")
	w.duration("max_age", &c.GC.ScratchAge, 0, longest)
	w.done()
	v, _ = g.get("records")
	r := d.section(v, "gc.records")
	r.duration("max_age", &c.GC.RecordAge, leastRecordAge, longest)
	r.done()
}
