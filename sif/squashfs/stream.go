package squashfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// Stream is Walk with the content of regular files: fn gets each entry and, for
// a regular file that is not a later hard link, its content; for all else content
// is nil. The tree is read and blocks are decompressed ahead of fn, over the
// borders of files, on Options.Workers goroutines; fn sees them in order. What fn
// leaves unread of a content is passed over. All goroutines have ended when Stream
// returns.
func (f *FS) Stream(ctx context.Context, fn func(*Entry, *Content) error) error {
	return f.stream(ctx, func(ctx context.Context, each func(*Entry) error) error { return f.Walk(ctx, each) }, fn)
}

// WriteFile writes the content of a regular file to w and returns its length. When
// w is a [ZeroWriter], holes are not written but reported to it.
func (f *FS) WriteFile(ctx context.Context, e *Entry, w io.Writer) (int64, error) {
	if !e.Mode.IsRegular() || e.node == nil {
		return 0, &fs.PathError{Op: "read", Path: e.Path, Err: fs.ErrInvalid}
	}
	if e.Size > f.opts.MaxBytes {
		return 0, tooMuch("%q has %d bytes", e.Path, e.Size)
	}
	file := *e
	file.LinkTo = ""
	var n int64
	err := f.stream(ctx, func(_ context.Context, each func(*Entry) error) error { return each(&file) },
		func(_ *Entry, c *Content) (err error) {
			n, err = c.WriteTo(w)
			return err
		})
	return n, err
}

// A ZeroWriter takes a run of zero bytes without getting them.
type ZeroWriter interface {
	WriteZeros(n int64) error
}

// Content is one file's content inside a Stream.
type Content struct {
	s    *stream
	path string
	left int64
}

// Chunk is a part of a file's content: Data, or Zeros zero bytes when Data is nil.
// Release must be called once when Data is no longer used; it may be called on any
// goroutine. Too many chunks held back stop the stream.
type Chunk struct {
	Data  []byte
	Zeros int64
	owner releaser
}

type releaser interface{ release() }

// Release gives the memory of Data back to the stream.
func (c Chunk) Release() {
	if c.owner != nil {
		c.owner.release()
	}
}

// Len is how many bytes of content the chunk stands for.
func (c Chunk) Len() int64 { return int64(len(c.Data)) + c.Zeros }

// Next gives the next chunk, or io.EOF behind the last one.
func (c *Content) Next() (Chunk, error) {
	if c.left == 0 {
		return Chunk{}, io.EOF
	}
	it, err := c.s.next()
	if err != nil {
		return Chunk{}, err
	}
	chunk, err := it.chunk()
	if err != nil {
		return Chunk{}, err
	}
	c.left -= chunk.Len()
	return chunk, nil
}

// WriteTo writes what is left of the content to w.
func (c *Content) WriteTo(w io.Writer) (int64, error) {
	var n int64
	zw, sparse := w.(ZeroWriter)
	for {
		chunk, err := c.Next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		switch {
		case chunk.Zeros > 0 && sparse:
			err = zw.WriteZeros(chunk.Zeros)
		case chunk.Zeros > 0:
			err = writeZeros(w, chunk.Zeros)
		default:
			_, err = w.Write(chunk.Data)
		}
		n += chunk.Len()
		chunk.Release()
		if err != nil {
			return n, err
		}
	}
}

var zeros [32 << 10]byte // only read

func writeZeros(w io.Writer, n int64) error {
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if _, err := w.Write(zeros[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// stream is the machinery of one Stream. One producer walks the tree and queues
// items in order; what has to be decompressed it also hands to the workers; the
// caller takes the items and waits for each to be ready.
type stream struct {
	fs    *FS
	ctx   context.Context
	items chan item
	room  *semaphore.Weighted // for what the entries among them point to
	work  chan task
	frags fragmentCache

	buffers chan []byte // given back
	made    int         // how many exist; the producer's
	most    int
}

// item is what the caller gets next: an entry, a piece of content or an error.
type item struct {
	entry *Entry
	err   error
	zeros int64
	block *blockTask
	frag  *fragment
	from  uint32 // of frag
	n     uint32
	path  string
}

// task is something to decompress.
type task interface {
	run(src []byte, d decoder)
}

const (
	// itemQueue is how many entries and pieces may wait. They are small.
	itemQueue = 1024
	// entryBytes is how many bytes of paths and extended attributes may wait with them. The
	// attributes of one file alone may have as many as MaxXattrBytes.
	entryBytes = 4 << 20
)

func (f *FS) stream(ctx context.Context, walk func(context.Context, func(*Entry) error) error, fn func(*Entry, *Content) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	bs := int64(f.super.blockSize)
	most := int(max(f.opts.ReadAhead/bs, int64(2*f.opts.Workers)))
	most = min(most, itemQueue)
	s := &stream{
		fs:      f,
		ctx:     ctx,
		items:   make(chan item, itemQueue),
		room:    semaphore.NewWeighted(entryBytes),
		work:    make(chan task, most),
		buffers: make(chan []byte, most),
		most:    most,
	}
	s.frags.init(s, int(max(f.opts.FragmentCache/bs, 4)))

	for range f.opts.Workers {
		wg.Go(s.worker)
	}
	wg.Go(func() {
		defer close(s.work)
		defer close(s.items)
		if err := walk(ctx, s.produce); err != nil {
			s.send(item{err: err})
		}
	})
	for {
		it, err := s.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		e := it.entry
		if !e.Mode.IsRegular() || e.LinkTo != "" {
			if err := fn(e, nil); err != nil {
				return err
			}
			continue
		}
		c := &Content{s: s, path: e.Path, left: e.Size}
		if err := fn(e, c); err != nil {
			return err
		}
		for c.left > 0 {
			chunk, err := c.Next()
			if err != nil {
				return err
			}
			chunk.Release()
		}
	}
}

// next takes the next item; io.EOF when the walk has ended well.
func (s *stream) next() (item, error) {
	select {
	case it, ok := <-s.items:
		if !ok {
			if err := s.ctx.Err(); err != nil {
				return item{}, err
			}
			return item{}, io.EOF
		}
		if it.entry != nil {
			s.room.Release(it.entry.weight())
		}
		return it, it.err
	case <-s.ctx.Done():
		return item{}, s.ctx.Err()
	}
}

func (s *stream) send(it item) error {
	select {
	case s.items <- it:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *stream) submit(t task) error {
	select {
	case s.work <- t:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// weight is how many of entryBytes an entry takes. A set of attributes counts for each of
// the entries that share it.
func (e *Entry) weight() int64 {
	n := len(e.Path) + len(e.Target)
	for _, x := range e.Xattrs {
		n += len(x.Name) + len(x.Value)
	}
	return int64(min(n, entryBytes))
}

// produce queues one entry and its content.
func (s *stream) produce(e *Entry) error {
	if err := s.room.Acquire(s.ctx, e.weight()); err != nil {
		return err
	}
	if err := s.send(item{entry: e}); err != nil {
		return err
	}
	if !e.Mode.IsRegular() || e.LinkTo != "" {
		return nil
	}
	list := s.fs.blockList(e.node, e.Path)
	for {
		p, ok, err := list.next()
		if err != nil || !ok {
			return err
		}
		it := item{path: e.Path}
		switch p.kind {
		case hole:
			it.zeros = p.length
		case block:
			buf, err := s.buffer()
			if err != nil {
				return err
			}
			it.block = &blockTask{s: s, place: p.place, buf: buf[:p.length], path: e.Path, done: make(chan struct{})}
			if err := s.submit(it.block); err != nil {
				return err
			}
		case tail:
			if it.frag, err = s.frags.get(p.fragment); err != nil {
				return err
			}
			it.from, it.n = p.offset, uint32(p.length)
		}
		if err := s.send(it); err != nil {
			return err
		}
	}
}

// buffer gives room for one block, waiting for one to come back when all are out.
func (s *stream) buffer() ([]byte, error) {
	select {
	case b := <-s.buffers:
		return b, nil
	default:
	}
	if s.made < s.most {
		s.made++
		return make([]byte, s.fs.super.blockSize), nil
	}
	select {
	case b := <-s.buffers:
		return b, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *stream) worker() {
	d := s.fs.codecs.get()
	defer s.fs.codecs.put(d)
	src := make([]byte, s.fs.super.blockSize)
	for {
		select {
		case t, ok := <-s.work:
			if !ok {
				return
			}
			t.run(src, d)
		case <-s.ctx.Done():
			return
		}
	}
}

// chunk waits until the item's content is there.
func (it item) chunk() (Chunk, error) {
	switch {
	case it.block != nil:
		b := it.block
		if err := b.s.wait(b.done); err != nil {
			return Chunk{}, err
		}
		if b.err != nil {
			return Chunk{}, b.err
		}
		return Chunk{Data: b.buf, owner: b}, nil
	case it.frag != nil:
		g := it.frag
		if err := g.cache.s.wait(g.done); err != nil {
			return Chunk{}, err
		}
		if g.err != nil {
			return Chunk{}, g.err
		}
		if int64(it.from)+int64(it.n) > int64(g.length) {
			return Chunk{}, corrupt("%q: its end lies outside its fragment (%d bytes at %d of %d)", it.path, it.n, it.from, g.length)
		}
		return Chunk{Data: g.buf[it.from : it.from+it.n : it.from+it.n], owner: g}, nil
	default:
		return Chunk{Zeros: it.zeros}, nil
	}
}

func (s *stream) wait(done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// blockTask is one block of a file.
type blockTask struct {
	s     *stream
	place blockPlace
	path  string
	buf   []byte // exactly what must come out
	err   error
	done  chan struct{}
}

func (b *blockTask) run(src []byte, d decoder) {
	n, err := b.s.fs.readBlock(b.buf, src, b.place, d, b.path)
	if err == nil && n != len(b.buf) {
		err = corrupt("%q: the block at %d has %d bytes instead of %d", b.path, b.place.pos, n, len(b.buf))
	}
	b.err = err
	close(b.done)
}

func (b *blockTask) release() {
	b.s.buffers <- b.buf[:cap(b.buf)] // has room for every buffer there is
}

// fragmentCache keeps fragment blocks from their request until the last chunk of
// them is released, and then as long as there is room. Only the producer asks.
type fragmentCache struct {
	s     *stream
	known map[uint32]*fragment
	order []*fragment // least recently asked for first
	limit int
	work  int64         // bytes that may still be decompressed
	freed chan struct{} // a fragment has become unused
}

type fragment struct {
	cache  *fragmentCache
	number uint32
	place  blockPlace
	buf    []byte
	length int
	err    error
	done   chan struct{}
	uses   atomic.Int32 // chunks not yet released, and the worker
}

func (c *fragmentCache) init(s *stream, limit int) {
	c.s = s
	c.known = make(map[uint32]*fragment)
	c.limit = limit
	if c.work = s.fs.opts.MaxFragmentWork; c.work <= 0 {
		c.work = 64<<30 + 64*min(s.fs.super.bytesUsed, 1<<50)
	}
	c.freed = make(chan struct{}, 1)
}

func (c *fragmentCache) get(i uint32) (*fragment, error) {
	if g, ok := c.known[i]; ok {
		g.uses.Add(1)
		if c.order[len(c.order)-1] != g {
			c.forget(g)
			c.order = append(c.order, g)
		}
		return g, nil
	}
	if c.work -= int64(c.s.fs.super.blockSize); c.work < 0 {
		return nil, tooMuch("its small files lie so scattered that the same blocks have to be decompressed again and again")
	}
	place, err := c.s.fs.fragmentPlace(i)
	if err != nil {
		return nil, err
	}
	buf, err := c.room()
	if err != nil {
		return nil, err
	}
	g := &fragment{cache: c, number: i, place: place, buf: buf, done: make(chan struct{})}
	g.uses.Store(2)
	c.known[i] = g
	c.order = append(c.order, g)
	return g, c.s.submit(g)
}

func (c *fragmentCache) forget(g *fragment) {
	for i, h := range c.order {
		if h == g {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}

// room gives a buffer, taking that of the unused fragment asked for longest ago
// when there are as many as may be.
func (c *fragmentCache) room() ([]byte, error) {
	if len(c.order) < c.limit {
		return make([]byte, c.s.fs.super.blockSize), nil
	}
	for {
		for _, g := range c.order {
			if g.uses.Load() == 0 {
				c.forget(g)
				delete(c.known, g.number)
				return g.buf, nil
			}
		}
		select {
		case <-c.freed:
		case <-c.s.ctx.Done():
			return nil, c.s.ctx.Err()
		}
	}
}

func (g *fragment) run(src []byte, d decoder) {
	g.length, g.err = g.cache.s.fs.readBlock(g.buf, src, g.place, d, "the fragments")
	close(g.done)
	g.release()
}

func (g *fragment) release() {
	if g.uses.Add(-1) == 0 {
		select {
		case g.cache.freed <- struct{}{}:
		default:
		}
	}
}
