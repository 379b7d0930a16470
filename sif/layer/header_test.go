package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/v6node/v6node/sif/squashfs"
)

func TestWhatDoesNotFitAHeaderIsReadBackFromPAX(t *testing.T) {
	long := strings.Repeat("d/", 90)
	for name, h := range map[string]header{
		"a name of 100 bytes":                  {name: strings.Repeat("n", 100), flag: regular},
		"a name of 101 bytes without a slash":  {name: strings.Repeat("n", 101), flag: regular},
		"a path that the prefix field takes":   {name: long + "f", flag: regular},
		"a path that ends in a slash":          {name: long, flag: directory},
		"a path of 256 bytes":                  {name: strings.Repeat("p", 155) + "/" + strings.Repeat("n", 100), flag: regular},
		"a path of 257 bytes":                  {name: strings.Repeat("p", 156) + "/" + strings.Repeat("n", 100), flag: regular},
		"a path that begins with a long name":  {name: strings.Repeat("p", 170) + "/n", flag: regular},
		"a non-ASCII name":                     {name: "ü", flag: regular},
		"a long target":                        {name: "l", flag: symlink, link: strings.Repeat("t", 4095)},
		"a target of 100 bytes":                {name: "l", flag: symlink, link: strings.Repeat("t", 100)},
		"the largest ids":                      {name: "i", flag: regular, uid: 1<<32 - 1, gid: 1<<21 - 1},
		"8 GiB":                                {name: "s", flag: regular, size: 8 << 30},
		"8 GiB less one byte":                  {name: "s", flag: regular, size: 8<<30 - 1},
		"the largest device numbers and time":  {name: "d", flag: charNode, dev: squashfs.Device{Major: 4095, Minor: 1<<20 - 1}, mtime: 1<<32 - 1, perm: 0o7777},
		"an attribute with every kind of byte": {name: "x", flag: regular, xattr: []squashfs.Xattr{{Name: "user.x", Value: []byte("\x00=\n\xff 12")}}},
	} {
		b, err := h.append(nil)
		if err != nil || len(b)%blockSize != 0 {
			t.Errorf("%s: %d bytes, error %v", name, len(b), err)
			continue
		}
		got, err := tar.NewReader(bytes.NewReader(b)).Next()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Name != h.name || got.Linkname != h.link || got.Typeflag != h.flag || got.Uid != int(h.uid) || got.Gid != int(h.gid) ||
			got.Size != h.size || got.ModTime.Unix() != h.mtime || got.Devmajor != int64(h.dev.Major) || got.Devminor != int64(h.dev.Minor) ||
			got.Mode != int64(h.perm) || got.Format&(tar.FormatUSTAR|tar.FormatPAX) == 0 {
			t.Errorf("%s: wrote %+v, read %+v", name, h, got)
		}
		for _, x := range h.xattr {
			if got.PAXRecords[xattrKey+x.Name] != string(x.Value) {
				t.Errorf("%s: %q, want %q", name, got.PAXRecords, x.Value)
			}
		}
	}
}

func TestARecordCountsItsOwnLength(t *testing.T) {
	for n := range 2000 {
		r := record("key", strings.Repeat("v", n))
		if digits, _, _ := strings.Cut(r, " "); digits != strconv.Itoa(len(r)) {
			t.Fatalf("a record of %d bytes says %s", len(r), digits)
		}
	}
}

func TestAnAttributeThatPAXCannotNameIsRefused(t *testing.T) {
	h := header{name: "f", flag: regular, xattr: []squashfs.Xattr{{Name: "user.a=b"}}}
	if _, err := h.append(nil); err == nil || !strings.Contains(err.Error(), "user.a=b") {
		t.Fatalf("error %v", err)
	}
}

// FuzzHeader writes any entry. It is refused, or read back as it was by another library.
func FuzzHeader(f *testing.F) {
	f.Add("etc/passwd", "", byte(regular), uint32(0o644), uint32(0), uint32(0), int64(5), uint32(1), uint16(0), "", []byte(nil))
	f.Add(strings.Repeat("d/", 90)+"f", "", byte(regular), uint32(0o7777), uint32(1<<31), uint32(1<<21), int64(8<<30), uint32(1<<31), uint16(0), "user.a", []byte("\x00=\n"))
	f.Add("l", strings.Repeat("ü", 200), byte(symlink), uint32(0o777), uint32(1), uint32(1), int64(0), uint32(0), uint16(0), "", []byte(nil))
	f.Add("dev/null", "", byte(charNode), uint32(0o666), uint32(0), uint32(0), int64(0), uint32(0), uint16(4095), "", []byte(nil))
	f.Add("a\nb=c", "d\n11 path=x\n", byte(hardLink), uint32(0), uint32(0), uint32(0), int64(0), uint32(0), uint16(0), "user.\n20 path=x\n", []byte("\n20 path=x\n"))
	f.Fuzz(func(t *testing.T, name, link string, flag byte, perm, uid, gid uint32, size int64, mtime uint32, major uint16, attr string, value []byte) {
		// What the reader of images never lets through.
		name, link, attr = strings.ReplaceAll(name, "\x00", ""), strings.ReplaceAll(link, "\x00", ""), strings.ReplaceAll(attr, "\x00", "")
		if name == "" || strings.HasSuffix(name, "/") {
			return
		}
		h := header{name: name, flag: flag, perm: perm & 0o7777, uid: uid, gid: gid, mtime: int64(mtime)}
		switch flag {
		case regular:
			h.size = max(size, 0)
		case hardLink, symlink:
			if h.link = link; link == "" {
				return
			}
		case charNode, blockNode:
			h.dev = squashfs.Device{Major: uint32(major) & 0xfff, Minor: uint32(perm) & 0xfffff}
		case fifo:
		default:
			return
		}
		if attr != "" {
			h.xattr = []squashfs.Xattr{{Name: "user." + attr, Value: value}}
		}
		b, err := h.append(nil)
		if err != nil {
			if !errors.Is(err, ErrUnrepresentable) {
				t.Fatalf("unexpected kind of error: %v", err)
			}
			return
		}
		got, err := tar.NewReader(bytes.NewReader(b)).Next()
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != h.name || got.Linkname != h.link || got.Typeflag != h.flag || got.Uid != int(h.uid) || got.Gid != int(h.gid) ||
			got.Size != h.size || got.ModTime.Unix() != h.mtime || got.Devmajor != int64(h.dev.Major) || got.Devminor != int64(h.dev.Minor) || got.Mode != int64(h.perm) {
			t.Fatalf("wrote %+v, read %+v", h, got)
		}
		for _, x := range h.xattr {
			if got.PAXRecords[xattrKey+x.Name] != string(x.Value) {
				t.Fatalf("%q, want %q", got.PAXRecords, x.Value)
			}
		}
	})
}
