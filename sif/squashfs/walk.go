package squashfs

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// Device is the number of a device node.
type Device struct{ Major, Minor uint32 }

// Entry is one path of an image. It belongs to whom it was given; what its slices
// point to must not be changed.
type Entry struct {
	Path   string      // relative, with slashes; "." is the root
	Mode   fs.FileMode // type, permissions, setuid, setgid, sticky
	UID    uint32
	GID    uint32
	MTime  time.Time // UTC, whole seconds
	Size   int64     // of a regular file, else 0
	Nlink  uint32
	Inode  uint32
	Target string // of a symbolic link, as it is in the image: it may point anywhere
	LinkTo string // the first path of the same inode, when this is a later one
	Rdev   Device
	Xattrs []Xattr // sorted by name

	node *inode
}

// Walk calls fn for every path of the image, each directory before what is in it
// and names in the order of their bytes, so always in the same order. It ends with
// the first error, be it fn's, ctx's or the image's.
func (f *FS) Walk(ctx context.Context, fn func(*Entry) error) error {
	w := walker{fs: f, fn: fn, dirs: make(map[uint64]struct{}), links: make(map[uint32]firstLink)}
	return w.run(ctx)
}

type walker struct {
	fs      *FS
	fn      func(*Entry) error
	entries int64
	bytes   int64
	dirs    map[uint64]struct{}  // directories already met, by place
	links   map[uint32]firstLink // inodes with more than one link, by number
	kept    int                  // bytes that links take, about
	xattrID uint32               // of the set in xattrs; many inodes in a row share one
	xattrs  []Xattr
}

// firstLink is the first path of an inode. All those in a directory share its path.
type firstLink struct {
	dir, name string
	ref       uint64
}

func (l firstLink) path() string { return join(l.dir, l.name) }

// linkSize is about what a firstLink takes beside its texts.
const linkSize = 64

// level is a directory that is being read.
type level struct {
	path string
	dir  *dirReader
	kept bool // a firstLink has its path
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

func (w *walker) run(ctx context.Context) error {
	w.xattrID = noXattrs
	root, err := w.visit(w.fs.super.rootInode, typeDir, nil, ".")
	if err != nil {
		return err
	}
	stack := []level{*root}
	for len(stack) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		top := &stack[len(stack)-1]
		e, ok, err := top.dir.next(top.path)
		if err != nil {
			return err
		}
		if !ok {
			stack = stack[:len(stack)-1]
			continue
		}
		if n := len(top.path) + 1 + len(e.name); n > w.fs.opts.MaxPath {
			return tooMuch("a path of %d bytes under %q; %d are allowed", n, brief(top.path), w.fs.opts.MaxPath)
		}
		sub, err := w.visit(e.ref, e.kind, top, e.name)
		if err != nil {
			return err
		}
		if sub != nil {
			if len(stack) >= w.fs.opts.MaxDepth {
				return tooMuch("%q lies more than %d directories deep", brief(sub.path), w.fs.opts.MaxDepth)
			}
			stack = append(stack, *sub)
		}
	}
	return nil
}

// visit reads the inode of a name in a directory (nil for the root) and hands it to fn. It
// opens the inode's listing when that is a directory.
func (w *walker) visit(ref uint64, kind uint16, dir *level, name string) (*level, error) {
	path := name
	if dir != nil {
		path = join(dir.path, name)
	}
	if w.entries++; w.entries > w.fs.opts.MaxEntries {
		return nil, tooMuch("more than %d paths", w.fs.opts.MaxEntries)
	}
	n, err := w.fs.readInode(ref, path)
	if err != nil {
		return nil, err
	}
	if n.kind != kind {
		return nil, corrupt("%q: the directory says type %d, the inode type %d", path, kind, n.kind)
	}
	if n.kind == typeDir {
		if _, met := w.dirs[ref]; met {
			return nil, corrupt("%q: this directory is also reached on another path", path)
		}
		w.dirs[ref] = struct{}{}
	}
	if n.xattr != w.xattrID {
		if w.xattrs, err = w.fs.readXattrs(n.xattr, path); err != nil {
			return nil, err
		}
		w.xattrID = n.xattr
	}
	e := w.fs.entry(n, path)
	e.Xattrs = w.xattrs
	if n.kind != typeDir && n.nlink > 1 {
		first, met := w.links[n.number]
		switch {
		case !met:
			if err := w.keep(n.number, firstLink{dir.path, name, ref}, dir); err != nil {
				return nil, err
			}
		case first.ref != ref:
			return nil, corrupt("%q and %q: two inodes with the number %d", first.path(), path, n.number)
		default:
			e.LinkTo = first.path()
		}
	}
	if n.kind == typeFile && e.LinkTo == "" {
		if n.size > w.fs.opts.MaxBytes-w.bytes {
			return nil, tooMuch("its files have more than %d bytes together (%q alone has %d)", w.fs.opts.MaxBytes, path, n.size)
		}
		w.bytes += n.size
	}
	if err := w.fn(e); err != nil {
		return nil, err
	}
	if n.kind != typeDir {
		return nil, nil
	}
	listing, err := w.fs.openDir(n)
	if err != nil {
		return nil, err
	}
	return &level{path: path, dir: listing}, nil
}

// keep remembers the first link of an inode, within a limit: an image says for itself how
// many links its files have.
func (w *walker) keep(number uint32, l firstLink, dir *level) error {
	w.kept += linkSize + len(l.name)
	if !dir.kept {
		dir.kept = true
		w.kept += len(dir.path)
	}
	if w.kept > w.fs.opts.MaxLinkBytes {
		return tooMuch("the names of files with hard links take more than %d bytes", w.fs.opts.MaxLinkBytes)
	}
	w.links[number] = l
	return nil
}

func (f *FS) entry(n *inode, path string) *Entry {
	e := &Entry{
		Path:  path,
		Mode:  fs.FileMode(n.mode & 0o777),
		UID:   n.uid,
		GID:   n.gid,
		MTime: time.Unix(int64(n.mtime), 0).UTC(),
		Nlink: n.nlink,
		Inode: n.number,
		node:  n,
	}
	for _, b := range [...]struct {
		bit  uint16
		mode fs.FileMode
	}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}} {
		if n.mode&b.bit != 0 {
			e.Mode |= b.mode
		}
	}
	switch n.kind {
	case typeDir:
		e.Mode |= fs.ModeDir
	case typeFile:
		e.Size = n.size
	case typeSymlink:
		e.Mode |= fs.ModeSymlink
		e.Target = n.target
	case typeBlock, typeChar:
		e.Mode |= fs.ModeDevice
		if n.kind == typeChar {
			e.Mode |= fs.ModeCharDevice
		}
		// The kernel's 32-bit form: 12 bits of major inside 20 of minor.
		e.Rdev = Device{Major: n.rdev >> 8 & 0xfff, Minor: n.rdev&0xff | n.rdev>>12&0xfff00}
	case typeFifo:
		e.Mode |= fs.ModeNamedPipe
	case typeSocket:
		e.Mode |= fs.ModeSocket
	}
	return e
}

// brief cuts a path that goes into an error.
func brief(path string) string {
	const most = 120
	if len(path) > most {
		return path[:most] + "..."
	}
	return path
}

// Lookup gives the entry at path, which is relative and clean ("etc/passwd").
// Symbolic links on the way are not followed; LinkTo is not set. The error wraps
// [fs.ErrNotExist] when there is no such path.
func (f *FS) Lookup(ctx context.Context, path string) (*Entry, error) {
	missing := func() error { return fmt.Errorf("%q in the squashfs image: %w", path, fs.ErrNotExist) }
	n, err := f.readInode(f.super.rootInode, ".")
	if err != nil {
		return nil, err
	}
	for rest, more := path, path != "."; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		if n.kind != typeDir || checkName([]byte(name), path) != nil { // names need not be UTF-8
			return nil, missing()
		}
		if n, err = f.child(ctx, n, name, path); err != nil {
			return nil, err
		}
		if n == nil {
			return nil, missing()
		}
	}
	e := f.entry(n, path)
	e.Xattrs, err = f.readXattrs(n.xattr, path)
	return e, err
}

// child finds name in a directory; nil when it is not there.
func (f *FS) child(ctx context.Context, dir *inode, name, path string) (*inode, error) {
	d, err := f.openDir(dir)
	if err != nil {
		return nil, err
	}
	for i := int64(0); i < f.opts.MaxEntries; i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e, ok, err := d.next(path)
		if err != nil || !ok || e.name > name {
			return nil, err
		}
		if e.name == name {
			return f.readInode(e.ref, path)
		}
	}
	return nil, tooMuch("more than %d paths", f.opts.MaxEntries)
}
