package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/v6node/v6node/sif/squashfs"
)

const (
	blockSize = 512
	nameSize  = 100
	prefix    = 155
	maxOctal7 = 1<<21 - 1       // owners, device numbers
	maxOctal1 = 1<<33 - 1       // sizes
	maxPAX    = 1 << 20         // what archive/tar, and so every runtime, reads of one PAX header
	paxName   = "PaxHeaders.0/" // with a fixed name behind it: nothing reads it
	xattrKey  = "SCHILY.xattr."
)

// Type flags of tar.
const (
	regular   = '0'
	hardLink  = '1'
	symlink   = '2'
	charNode  = '3'
	blockNode = '4'
	directory = '5'
	fifo      = '6'
	extended  = 'x'
)

// ErrUnrepresentable means that an OCI layer cannot hold something in the image.
var ErrUnrepresentable = errors.New("cannot be put into an OCI layer")

// header is what the tar header of one entry says.
type header struct {
	name  string
	link  string
	flag  byte
	perm  uint32
	uid   uint32
	gid   uint32
	size  int64
	mtime int64
	dev   squashfs.Device
	xattr []squashfs.Xattr
}

// headerOf describes an entry; ok is false for a socket.
func headerOf(e *squashfs.Entry) (h header, ok bool) {
	h = header{
		name:  e.Path,
		perm:  uint32(e.Mode.Perm()),
		uid:   e.UID,
		gid:   e.GID,
		mtime: e.MTime.Unix(),
		xattr: e.Xattrs,
	}
	for _, b := range [...]struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}} {
		if e.Mode&b.mode != 0 {
			h.perm |= b.bit
		}
	}
	switch e.Mode.Type() {
	case 0:
		h.flag, h.size = regular, e.Size
	case fs.ModeDir:
		h.flag = directory
		h.name += "/"
	case fs.ModeSymlink:
		h.flag, h.link = symlink, e.Target
	case fs.ModeDevice:
		h.flag, h.dev = blockNode, e.Rdev
	case fs.ModeDevice | fs.ModeCharDevice:
		h.flag, h.dev = charNode, e.Rdev
	case fs.ModeNamedPipe:
		h.flag = fifo
	default:
		return h, false
	}
	if e.LinkTo != "" {
		h.flag, h.link, h.size, h.xattr, h.dev = hardLink, e.LinkTo, 0, nil, squashfs.Device{}
	}
	return h, true
}

// append adds the entry's tar header, with a PAX header before it if it needs one.
func (h *header) append(b []byte) ([]byte, error) {
	var records []string
	add := func(key, value string) { records = append(records, record(key, value)) }

	name, dir, fits := split(h.name)
	if !fits {
		add("path", h.name)
	}
	link := h.link
	if len(link) > nameSize || !ascii(link) {
		add("linkpath", link)
		link = ""
	}
	uid, gid, size := uint64(h.uid), uint64(h.gid), uint64(h.size)
	for _, n := range [...]struct {
		key   string
		value *uint64
		most  uint64
	}{{"uid", &uid, maxOctal7}, {"gid", &gid, maxOctal7}, {"size", &size, maxOctal1}} {
		if *n.value > n.most {
			add(n.key, strconv.FormatUint(*n.value, 10))
			*n.value = 0
		}
	}
	for _, x := range h.xattr {
		if strings.HasPrefix(x.Name, "trusted.overlay.") {
			continue
		}
		if strings.IndexByte(x.Name, '=') >= 0 {
			return nil, fmt.Errorf("%q %w: a PAX header has no room for an equals sign in the name of its extended attribute %q", h.name, ErrUnrepresentable, x.Name)
		}
		add(xattrKey+x.Name, string(x.Value))
	}
	if len(records) > 0 {
		slices.SortFunc(records, func(a, b string) int { return strings.Compare(key(a), key(b)) })
		total := 0
		for _, r := range records {
			total += len(r)
		}
		if total > maxPAX {
			return nil, fmt.Errorf("%q %w: its extended attributes take %d bytes, runtimes read at most %d", h.name, ErrUnrepresentable, total, maxPAX)
		}
		b = appendUSTAR(b, ustar{name: paxName + "x", flag: extended, perm: 0o644, size: uint64(total)})
		for _, r := range records {
			b = append(b, r...)
		}
		b = appendZeros(b, padding(int64(total)))
	}
	return appendUSTAR(b, ustar{
		name: name, prefix: dir, link: link, flag: h.flag, perm: h.perm,
		uid: uid, gid: gid, size: size, mtime: uint64(h.mtime), dev: h.dev,
	}), nil
}

// record is one PAX record. Its length counts its own digits.
func record(key, value string) string {
	n := len(key) + len(value) + len(" =\n")
	size := n + len(strconv.Itoa(n))
	size = n + len(strconv.Itoa(size))
	return strconv.Itoa(size) + " " + key + "=" + value + "\n"
}

func key(record string) string {
	_, kv, _ := strings.Cut(record, " ")
	k, _, _ := strings.Cut(kv, "=")
	return k
}

// split lays a path into the name and prefix of a ustar header. When it does not
// fit, a PAX record has it and the header shows nothing of it.
func split(path string) (name, dir string, ok bool) {
	if !ascii(path) || len(path) > prefix+1+nameSize {
		return "", "", false
	}
	if len(path) <= nameSize {
		return path, "", true
	}
	// The last slash that leaves a prefix which fits; not the one at the end.
	i := strings.LastIndexByte(path[:min(len(path)-1, prefix+1)], '/')
	if i <= 0 || len(path)-i-1 > nameSize {
		return "", "", false
	}
	return path[i+1:], path[:i], true
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// ustar are the fields of one header block, all of which fit.
type ustar struct {
	name, prefix, link    string
	flag                  byte
	perm                  uint32
	uid, gid, size, mtime uint64
	dev                   squashfs.Device
}

func appendUSTAR(b []byte, u ustar) []byte {
	start := len(b)
	b = appendZeros(b, blockSize)
	h := b[start:]
	copy(h[0:100], u.name)
	octal(h[100:108], uint64(u.perm))
	octal(h[108:116], u.uid)
	octal(h[116:124], u.gid)
	octal(h[124:136], u.size)
	octal(h[136:148], u.mtime)
	copy(h[148:156], "        ") // counts as spaces in its own sum
	h[156] = u.flag
	copy(h[157:257], u.link)
	copy(h[257:265], "ustar\x0000")
	octal(h[329:337], uint64(u.dev.Major))
	octal(h[337:345], uint64(u.dev.Minor))
	copy(h[345:500], u.prefix)
	var sum uint64
	for _, c := range h {
		sum += uint64(c)
	}
	octal(h[148:155], sum)
	return b
}

// octal fills a field with digits, leading zeros and a NUL at the end.
func octal(field []byte, v uint64) {
	i := len(field) - 1
	field[i] = 0
	for i--; i >= 0; i-- {
		field[i] = byte('0' + v&7)
		v >>= 3
	}
}

var zeroBytes [32 << 10]byte // only read

func appendZeros(b []byte, n int) []byte { return append(b, zeroBytes[:n]...) }

// padding is how many bytes fill n up to whole blocks.
func padding(n int64) int { return int(-n & (blockSize - 1)) }
