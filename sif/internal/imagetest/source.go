package imagetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/sif/squashfs"
)

// Source is a directory with every kind of file there is, and what an image made of
// it must hold. It needs no privilege: devices and owners are added by mksquashfs.
type Source struct {
	Dir    string
	Nodes  map[string]Node
	pseudo string
}

// NewSource makes the directory. blockSize is that of the images it is meant for: file
// lengths lie around it.
func NewSource(tb testing.TB, blockSize int) *Source {
	tb.Helper()
	s := &Source{Dir: filepath.Join(tb.TempDir(), "source")}
	r := rand.New(rand.NewPCG(uint64(blockSize), 7))
	text := func(n int) []byte {
		var b bytes.Buffer
		for b.Len() < n {
			fmt.Fprintf(&b, "%d %s\n", r.IntN(100), strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(9)))
		}
		return b.Bytes()[:n]
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	s.dir(tb, ".")
	s.dir(tb, "empty directory")
	for i, n := range []int{0, 1, 511, 512, 513, blockSize - 1, blockSize, blockSize + 1, 2*blockSize + 17} {
		s.file(tb, fmt.Sprintf("sizes/text-%02d-%d", i, n), text(n))
		s.file(tb, fmt.Sprintf("sizes/random-%02d-%d", i, n), random(n))
	}
	s.file(tb, "sizes/zeros", make([]byte, 2*blockSize+5))
	s.sparse(tb, "sparse/start", int64(5*blockSize), map[int64][]byte{int64(4*blockSize) + 10: []byte("end")})
	s.sparse(tb, "sparse/middle", int64(9*blockSize)+100, map[int64][]byte{0: random(10), int64(9 * blockSize): random(100)})
	s.sparse(tb, "sparse/end", int64(6*blockSize)+1, map[int64][]byte{3: random(blockSize)})
	s.sparse(tb, "sparse/all", 16<<20, nil)
	for i := range 1200 { // several headers, several metadata blocks, an indexed directory
		s.file(tb, fmt.Sprintf("many/%04d-with a rather long name for a small file", i), fmt.Appendf(nil, "file %d", i%7))
	}
	// Byte order of names against order of paths.
	for _, p := range []string{"order/a/b", "order/a.b", "order/a-b", "order/A", "order/\xc3\xa4", "order/not UTF-8 \xff"} {
		s.file(tb, p, []byte(p))
	}
	long := strings.Repeat("n", 255)
	s.file(tb, "names/"+long, []byte("long name"))
	s.file(tb, "names/ünïcödé.txt", []byte("non-ASCII name"))
	s.file(tb, "names/new\nline", nil)
	s.dir(tb, "names/"+strings.Repeat(strings.Repeat("d", 99)+"/", 2)+"leaf")
	s.file(tb, strings.Repeat("deep/", 40)+"file", []byte("deep"))

	s.file(tb, "links/file", []byte("linked"))
	s.try(tb, os.Link(s.path("links/file"), s.path("links/hard")))
	s.try(tb, os.Link(s.path("links/file"), s.path("another name of the same file")))
	s.try(tb, os.Symlink("file", s.path("links/relative")))
	s.try(tb, os.Link(s.path("links/relative"), s.path("links/relative too")))
	s.try(tb, os.Symlink("../../../../../etc/passwd", s.path("links/escaping")))
	s.try(tb, os.Symlink(strings.Repeat("/t", 1000), s.path("links/long")))
	s.try(tb, os.Symlink("/näme", s.path("links/non-ASCII")))

	s.dir(tb, "special")
	s.try(tb, unix.Mkfifo(s.path("special/fifo"), 0o640))
	s.socket(tb, "special/socket")
	for name, mode := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2755, "sticky": 0o1644} {
		s.file(tb, "modes/"+name, []byte(name))
		s.try(tb, unix.Chmod(s.path("modes/"+name), mode))
	}
	s.try(tb, unix.Chmod(s.path("empty directory"), 0o1777))

	long200, longer := strings.Repeat("v", 200), string(random(3000))
	for name, attrs := range map[string]map[string]string{
		"one": {"user.comment": "a value"}, "same": {"user.comment": "a value"},
		"binary": {"user.binary": "\x00\n=\xff", "user.empty": ""},
		// Values that occur twice are stored once, out of line.
		"shared a": {"user.a": long200, "user.x": longer}, "shared b": {"user.b": long200, "user.y": longer},
	} {
		s.file(tb, "xattrs/"+name, []byte(name))
		for k, v := range attrs {
			if err := unix.Lsetxattr(s.path("xattrs/"+name), k, []byte(v), 0); !errors.Is(err, unix.ENOTSUP) {
				s.try(tb, err) // a file system without them leaves this part of the test out
			}
		}
	}
	s.file(tb, "modes/none", []byte("nobody may read this"))
	for i, p := range []string{"links/file", "sizes/zeros", "special/fifo", "empty directory", "."} {
		at := unix.NsecToTimespec(time.Date(1971+i*8, 2, 3, 4, 5, 6, 0, time.UTC).UnixNano())
		s.try(tb, unix.UtimesNanoAt(unix.AT_FDCWD, s.path(p), []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW))
	}
	s.Nodes = ListDir(tb, s.Dir)

	for p, n := range s.Nodes {
		n.MTime = min(n.MTime, imageTime) // as SOURCE_DATE_EPOCH makes mksquashfs do
		s.Nodes[p] = n
	}
	s.device("special/null", Node{Type: "char", Mode: 0o666, Major: 1, Minor: 3})
	s.device("special/disk", Node{Type: "block", Mode: 0o660, GID: 6, Major: 259, Minor: 70000})
	s.change("modes/setuid", 0o4755, 1234, 5678)
	s.change("modes/none", 0, 70000, 4294967294)
	return s
}

func (s *Source) path(p string) string { return filepath.Join(s.Dir, p) }

func (s *Source) try(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (s *Source) dir(tb testing.TB, p string) {
	tb.Helper()
	s.try(tb, os.MkdirAll(s.path(p), 0o755))
}

func (s *Source) file(tb testing.TB, p string, data []byte) {
	tb.Helper()
	s.dir(tb, filepath.Dir(p))
	s.try(tb, os.WriteFile(s.path(p), data, 0o644))
}

func (s *Source) sparse(tb testing.TB, p string, size int64, data map[int64][]byte) {
	tb.Helper()
	s.file(tb, p, nil)
	f, err := os.OpenFile(s.path(p), os.O_WRONLY, 0)
	s.try(tb, err)
	s.try(tb, f.Truncate(size))
	for off, b := range data {
		_, err := f.WriteAt(b, off)
		s.try(tb, err)
	}
	s.try(tb, f.Close())
}

// socket makes a socket under a short name first: the kernel takes 107 bytes.
func (s *Source) socket(tb testing.TB, p string) {
	tb.Helper()
	short, err := os.MkdirTemp("", "s")
	s.try(tb, err)
	defer os.RemoveAll(short)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short + "/s", Net: "unix"})
	s.try(tb, err)
	l.SetUnlinkOnClose(false)
	s.try(tb, l.Close())
	s.try(tb, os.Rename(short+"/s", s.path(p)))
}

// device adds a node by a pseudo file definition. Its time is that of the image.
func (s *Source) device(p string, n Node) {
	kind := "c"
	if n.Type == "block" {
		kind = "b"
	}
	s.pseudo += fmt.Sprintf("%s %s %o %d %d %d %d\n", p, kind, n.Mode, n.UID, n.GID, n.Major, n.Minor)
	n.MTime = imageTime
	s.Nodes[p] = n
}

// change gives a file another mode and owner in the image than it has here.
func (s *Source) change(p string, mode, uid, gid uint32) {
	n := s.Nodes[p]
	n.Mode, n.UID, n.GID = mode, uid, gid
	s.Nodes[p] = n
	s.pseudo += fmt.Sprintf("%s m %o %d %d\n", p, n.Mode, uid, gid)
}

// imageTime is when every image says it was made.
const imageTime = 1700000000

// Image makes an image of the source with mksquashfs and these further arguments.
func (s *Source) Image(tb testing.TB, args ...string) *os.File {
	tb.Helper()
	dir := tb.TempDir()
	pseudo := filepath.Join(dir, "pseudo")
	s.try(tb, os.WriteFile(pseudo, []byte(s.pseudo), 0o600))
	args = append([]string{"-pf", pseudo}, args...)
	return Make(tb, s.Dir, args...)
}

// Make makes an image of a directory with mksquashfs.
func Make(tb testing.TB, dir string, args ...string) *os.File {
	tb.Helper()
	out := filepath.Join(tb.TempDir(), "image.squashfs")
	bin, err := exec.LookPath("mksquashfs")
	if err != nil {
		tb.Fatal("this test makes images with mksquashfs, which was not found; install the package squashfs-tools")
	}
	cmd := exec.Command(bin, append([]string{dir, out, "-noappend", "-no-progress", "-quiet", "-processors", "1"}, args...)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", imageTime))
	if msg, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", cmd, err, msg)
	}
	f, err := os.Open(out)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return f
}

// Open opens an image that fills a file.
func Open(tb testing.TB, f *os.File) *squashfs.FS {
	tb.Helper()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		tb.Fatal(err)
	}
	img, err := squashfs.Open(f, 0, size, squashfs.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return img
}

// Mount mounts an image read-only and gives the directory. It skips the test where
// that is not possible.
func Mount(tb testing.TB, f *os.File) string {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("only root can mount an image")
	}
	dir := tb.TempDir()
	if msg, err := exec.Command("mount", "-t", "squashfs", "-o", "loop,ro", f.Name(), dir).CombinedOutput(); err != nil {
		tb.Skipf("the kernel does not mount this image: %s", bytes.TrimSpace(msg))
	}
	tb.Cleanup(func() {
		if msg, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			tb.Errorf("unmount %s: %s", dir, msg)
		}
	})
	return dir
}

// Variant is one way to make an image.
type Variant struct {
	Name      string
	BlockSize int
	Args      []string
}

// Want is what an image of the source made in this way must hold.
func (v Variant) Want(s *Source) map[string]Node {
	want := s.Nodes
	if slices.Contains(v.Args, "-no-hardlinks") {
		want = WithoutGroups(want)
	}
	if slices.Contains(v.Args, "-no-xattrs") {
		want = WithoutXattrs(want)
	}
	return want
}

// Variants are each compression and each block size, with and without fragments, attributes
// and an export table, and a choice of other forms. Making an image costs the most, so
// each of them stands for several properties at once.
func Variants() []Variant {
	var out []Variant
	for _, v := range []struct {
		name, args string
		kib        int
	}{
		{"gzip, 4 KiB", "-comp gzip", 4},
		{"xz with filters, 8 KiB", "-comp xz -Xbcj x86,arm -Xdict-size 100%", 8},
		{"lz4, 16 KiB, not exportable", "-comp lz4 -no-exports", 16},
		{"xz, 32 KiB, no attributes", "-comp xz -no-xattrs", 32},
		{"zstd, 64 KiB", "-comp zstd", 64},
		{"gzip, 128 KiB, no hard links", "-comp gzip -no-hardlinks", 128},
		{"zstd, 256 KiB, no fragments, not exportable, no attributes", "-comp zstd -no-fragments -no-exports -no-xattrs", 256},
		{"lz4 high, 512 KiB, not padded", "-comp lz4 -Xhc -nopad", 512},
		{"lz4, 1 MiB", "-comp lz4", 1024},
		{"lzo, 8 KiB, no fragments", "-comp lzo -no-fragments", 8},
		{"lzo fast, 128 KiB, no duplicates", "-comp lzo -Xalgorithm lzo1x_1 -no-duplicates", 128},
		{"gzip strategies, only fragments", "-comp gzip -Xstrategy huffman_only,run_length_encoded,fixed -always-use-fragments", 4},
		{"nothing compressed", "-comp gzip -noI -noD -noF -noX -noId", 64},
		{"tables as they are", "-comp zstd -noI -noId", 4},
		{"data as they are", "-comp zstd -noD -noF", 64},
	} {
		bs := v.kib << 10
		out = append(out, Variant{v.name, bs, append(strings.Fields(v.args), "-b", fmt.Sprint(bs))})
	}
	return out
}
