// Package imagetest helps the tests of sif: it lists a tree in one form wherever the
// tree is (a squashfs image, a tar, a directory, a golden listing), compares two such
// listings, and makes images with mksquashfs. Only tests may import it.
package imagetest

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/sif/squashfs"
)

// Node is all that counts of one path. Group is the first path, by name, of the same
// inode when there are several.
type Node struct {
	Type   string
	Mode   uint32 // with setuid, setgid and sticky
	UID    uint32
	GID    uint32
	MTime  int64
	Size   int64
	SHA256 string
	Group  string
	Target string
	Major  uint32
	Minor  uint32
	Xattrs string // sorted, "name=hex" each
}

// Equal reports every difference between two listings.
func Equal(tb testing.TB, got, want map[string]Node) {
	tb.Helper()
	for _, p := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[p]
		if !ok {
			tb.Errorf("%q is missing", p)
		} else if g != want[p] {
			tb.Errorf("%q:\n got %+v\nwant %+v", p, g, want[p])
		}
	}
	for _, p := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[p]; !ok {
			tb.Errorf("%q is there, but should not be", p)
		}
	}
}

// List lists an image through the reader.
func List(tb testing.TB, img *squashfs.FS) map[string]Node {
	tb.Helper()
	nodes := make(map[string]Node)
	last := ""
	err := img.Stream(context.Background(), func(e *squashfs.Entry, c *squashfs.Content) error {
		n := Node{
			Mode: uint32(e.Mode.Perm()), UID: e.UID, GID: e.GID, MTime: e.MTime.Unix(), Size: e.Size,
			Target: e.Target, Major: e.Rdev.Major, Minor: e.Rdev.Minor,
		}
		if e.Mode&fs.ModeSetuid != 0 {
			n.Mode |= 0o4000
		}
		if e.Mode&fs.ModeSetgid != 0 {
			n.Mode |= 0o2000
		}
		if e.Mode&fs.ModeSticky != 0 {
			n.Mode |= 0o1000
		}
		var xattrs []string
		for _, x := range e.Xattrs {
			xattrs = append(xattrs, x.Name+"="+hex.EncodeToString(x.Value))
		}
		n.Xattrs = strings.Join(xattrs, " ")
		switch e.Mode.Type() {
		case 0:
			n.Type = "file"
		case fs.ModeDir:
			n.Type = "dir"
		case fs.ModeSymlink:
			n.Type = "symlink"
		case fs.ModeDevice:
			n.Type = "block"
		case fs.ModeDevice | fs.ModeCharDevice:
			n.Type = "char"
		case fs.ModeNamedPipe:
			n.Type = "fifo"
		case fs.ModeSocket:
			n.Type = "socket"
		}
		if c != nil {
			h := sha256.New()
			size, err := c.WriteTo(h)
			if err != nil {
				return err
			}
			if size != e.Size {
				return fmt.Errorf("%s: %d bytes of content, size %d", e.Path, size, e.Size)
			}
			n.SHA256 = hex.EncodeToString(h.Sum(nil))
		} else if e.LinkTo != "" {
			first := nodes[e.LinkTo]
			first.Group = e.LinkTo
			nodes[e.LinkTo] = first
			n.Group, n.SHA256 = e.LinkTo, first.SHA256
		}
		if !before(last, e.Path) {
			return fmt.Errorf("%q comes behind %q", e.Path, last)
		}
		last = e.Path
		nodes[e.Path] = n
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return nodes
}

// before says whether path a comes before b: directories before what is in them,
// names in byte order.
func before(a, b string) bool {
	if a == "" || a == "." {
		return b != "." || a == ""
	}
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) < 0
}

// ListTar lists a tar through archive/tar.
func ListTar(tb testing.TB, r io.Reader) map[string]Node {
	tb.Helper()
	nodes := make(map[string]Node)
	types := map[byte]string{tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "symlink", tar.TypeBlock: "block", tar.TypeChar: "char", tar.TypeFifo: "fifo"}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nodes
		}
		if err != nil {
			tb.Fatal(err)
		}
		if h.Uname != "" || h.Gname != "" || h.ModTime.Nanosecond() != 0 {
			tb.Errorf("%q: names %q %q, time %v", h.Name, h.Uname, h.Gname, h.ModTime)
		}
		p := path.Clean(h.Name)
		if (h.Typeflag == tar.TypeDir) != strings.HasSuffix(h.Name, "/") {
			tb.Errorf("%q has type %q", h.Name, h.Typeflag)
		}
		if _, ok := nodes[p]; ok {
			tb.Errorf("%q occurs twice", p)
		}
		if h.Typeflag == tar.TypeLink {
			n, ok := nodes[h.Linkname]
			if !ok {
				tb.Errorf("%q links to %q, which does not come before it", p, h.Linkname)
			}
			n.Group = h.Linkname
			nodes[h.Linkname], nodes[p] = n, n
			continue
		}
		n := Node{
			Type: types[h.Typeflag], Mode: uint32(h.Mode), UID: uint32(h.Uid), GID: uint32(h.Gid), MTime: h.ModTime.Unix(),
			Size: h.Size, Target: h.Linkname, Major: uint32(h.Devmajor), Minor: uint32(h.Devminor),
		}
		var xattrs []string
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				xattrs = append(xattrs, name+"="+hex.EncodeToString([]byte(v)))
			}
		}
		slices.Sort(xattrs)
		n.Xattrs = strings.Join(xattrs, " ")
		if h.Typeflag == tar.TypeReg {
			sum := sha256.New()
			if _, err := io.Copy(sum, tr); err != nil {
				tb.Fatal(err)
			}
			n.SHA256 = hex.EncodeToString(sum.Sum(nil))
		}
		nodes[p] = n
	}
}

// ListDir lists a directory of the running system, a mounted image for instance.
func ListDir(tb testing.TB, root string) map[string]Node {
	tb.Helper()
	nodes := make(map[string]Node)
	groups := make(map[uint64][]string)
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		n := Node{Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, MTime: st.Mtim.Sec}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			n.Type, n.Size = "file", st.Size
			if n.SHA256, err = sum(p); err != nil {
				return err
			}
		case unix.S_IFDIR:
			n.Type = "dir"
		case unix.S_IFLNK:
			n.Type = "symlink"
			if n.Target, err = os.Readlink(p); err != nil {
				return err
			}
		case unix.S_IFBLK, unix.S_IFCHR:
			n.Type = "block"
			if st.Mode&unix.S_IFMT == unix.S_IFCHR {
				n.Type = "char"
			}
			n.Major, n.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
		case unix.S_IFIFO:
			n.Type = "fifo"
		case unix.S_IFSOCK:
			n.Type = "socket"
		}
		if st.Nlink > 1 && n.Type != "dir" {
			groups[st.Ino] = append(groups[st.Ino], rel)
		}
		if n.Xattrs, err = xattrs(p); err != nil {
			return err
		}
		nodes[rel] = n
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	for _, paths := range groups {
		if len(paths) < 2 {
			continue
		}
		slices.SortFunc(paths, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
		for _, p := range paths {
			n := nodes[p]
			n.Group = paths[0]
			nodes[p] = n
		}
	}
	return nodes
}

func sum(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

func xattrs(p string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if errors.Is(err, syscall.ENOTSUP) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var out []string
	for name := range strings.SplitSeq(strings.Trim(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		v := make([]byte, 64<<10)
		k, err := unix.Lgetxattr(p, name, v)
		if err != nil {
			return "", err
		}
		out = append(out, name+"="+hex.EncodeToString(v[:k]))
	}
	slices.Sort(out)
	return strings.Join(out, " "), nil
}

// Golden is a SIF file made by Apptainer, with what the kernel shows of it.
type Golden struct {
	Name   string
	File   *os.File
	Offset int64
	Size   int64
	Nodes  map[string]Node
}

// Goldens opens the SIF files beside the checkout; it skips the test when they are
// not there.
func Goldens(tb testing.TB) []Golden {
	tb.Helper()
	dir := GoldenDir(tb)
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var index map[string]struct {
		Offset int64 `json:"squashfs_offset"`
		End    int64 `json:"squashfs_end"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		tb.Fatal(err)
	}
	var out []Golden
	for _, name := range slices.Sorted(maps.Keys(index)) {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { f.Close() })
		x := index[name]
		out = append(out, Golden{name, f, x.Offset, x.End - x.Offset, golden(tb, filepath.Join(dir, strings.TrimSuffix(name, ".sif")+".golden.jsonl"))})
	}
	if len(out) == 0 {
		tb.Fatal("the index names no image")
	}
	return out
}

// GoldenDir is where the reference images are: testdata/sif in the directory that
// V6NODE_SHARED names, or in "shared" beside the checkout. It skips the test when they
// are not there, unless V6NODE_SHARED says that they are.
func GoldenDir(tb testing.TB) string {
	tb.Helper()
	shared := os.Getenv("V6NODE_SHARED")
	named := shared != ""
	if !named {
		dir, err := os.Getwd()
		if err != nil {
			tb.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				break
			}
			if dir == filepath.Dir(dir) {
				tb.Fatal("no go.mod above the test")
			}
			dir = filepath.Dir(dir)
		}
		shared = filepath.Join(filepath.Dir(dir), "shared")
	}
	dir := filepath.Join(shared, "testdata", "sif")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && !named {
		tb.Skipf("the reference images are not there (%s)", dir)
	} else if err != nil {
		tb.Fatal(err)
	}
	return dir
}

func golden(tb testing.TB, name string) map[string]Node {
	f, err := os.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	nodes := make(map[string]Node)
	groups := make(map[int][]string)
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var x struct {
			Path, Mode, Type, SHA256, Target string
			UID, GID                         uint32
			MTime, Size                      int64
			Dev                              []uint32
			Group                            int               `json:"hardlink_group"`
			Xattrs                           map[string]string `json:"xattrs_hex"`
		}
		if err := json.Unmarshal(sc.Bytes(), &x); err != nil {
			tb.Fatal(err)
		}
		n := Node{Type: x.Type, UID: x.UID, GID: x.GID, MTime: x.MTime, Size: x.Size, SHA256: x.SHA256, Target: x.Target}
		if _, err := fmt.Sscanf(x.Mode, "0o%o", &n.Mode); err != nil {
			tb.Fatal(err)
		}
		if len(x.Dev) == 2 {
			n.Major, n.Minor = x.Dev[0], x.Dev[1]
		}
		var xs []string
		for k, v := range x.Xattrs {
			xs = append(xs, k+"="+v)
		}
		slices.Sort(xs)
		n.Xattrs = strings.Join(xs, " ")
		if x.Group != 0 {
			groups[x.Group] = append(groups[x.Group], x.Path)
		}
		nodes[x.Path] = n
	}
	for _, paths := range groups {
		slices.Sort(paths)
		for _, p := range paths {
			n := nodes[p]
			n.Group = paths[0]
			nodes[p] = n
		}
	}
	return nodes
}

// WithoutGroups is a listing in which no two paths are the same file.
func WithoutGroups(nodes map[string]Node) map[string]Node {
	return change(nodes, func(n *Node) { n.Group = "" })
}

// WithoutXattrs is a listing without extended attributes.
func WithoutXattrs(nodes map[string]Node) map[string]Node {
	return change(nodes, func(n *Node) { n.Xattrs = "" })
}

func change(nodes map[string]Node, by func(*Node)) map[string]Node {
	out := make(map[string]Node, len(nodes))
	for p, n := range nodes {
		by(&n)
		out[p] = n
	}
	return out
}
