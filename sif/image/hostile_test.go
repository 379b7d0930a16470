package image

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"testing"

	apptainer "github.com/apptainer/sif/v2/pkg/sif"
	"golang.org/x/sys/unix"

	"github.com/v6node/v6node/sif/internal/siftest"
	"github.com/v6node/v6node/sif/squashfs"
)

// Where the numbers of the global header and of a descriptor lie.
const (
	headerFree, headerTotal, headerOffset, headerDescriptors = 80, 88, 96, 104

	descriptorTable = 4096 // where the SIF library puts the first
	descrType       = 0
	descrUsed       = 4
	descrID         = 5
	descrOffset     = 17
	descrSize       = 25
	descrExtra      = 201
)

// edited writes a copy of a SIF with some bytes changed, and tries to use it.
func edited(tb testing.TB, good []byte, edit func([]byte) []byte) error {
	tb.Helper()
	b := edit(append([]byte(nil), good...))
	return try(tb, b)
}

// try opens and converts whatever it is given.
func try(tb testing.TB, b []byte) error {
	fd, err := unix.MemfdCreate("sif", unix.MFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "sif")
	if _, err := f.Write(b); err != nil {
		tb.Fatal(err)
	}
	_, err = use(tb, f)
	return err
}

// use opens and converts a file within limits that keep it cheap.
func use(tb testing.TB, f *os.File) (*Result, error) {
	tb.Helper()
	src, err := NewSource(tb.Context(), f, 0, nil)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	img, err := Open(tb.Context(), src, Options{Architecture: "amd64", Squashfs: squashfs.Options{MaxBytes: 16 << 20, MaxEntries: 10000, ReadAhead: 1, FragmentCache: 1}})
	if err != nil {
		return nil, err
	}
	img.Objects()
	return img.Convert(tb.Context(), func(int) (io.Writer, error) { return nil, nil }, ConvertOptions{MaxBytes: 64 << 20})
}

func smallSIF(tb testing.TB) []byte {
	tb.Helper()
	path := siftest.Write(tb, siftest.System(siftest.Squashfs(tb, siftest.Apptainer("export A=b\n", "true\n", map[string]string{"a": "b"}))),
		siftest.JSON("oci-config.json", `{"Cmd":["x"]}`))
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestAHostileHeaderIsRefused(t *testing.T) {
	good := smallSIF(t)
	if err := try(t, good); err != nil {
		t.Fatal(err)
	}
	put := func(at int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint64(b[at:], v); return b }
	}
	descr := func(n, field int, v uint64) func([]byte) []byte {
		return put(descriptorTable+n*descriptorSize+field, v)
	}
	size := uint64(len(good))
	for name, c := range map[string]struct {
		edit func([]byte) []byte
		want error
	}{
		"other magic":            {func(b []byte) []byte { b[magicOffset] = 'X'; return b }, ErrNotSIF},
		"other version":          {func(b []byte) []byte { b[versionOffset+1] = '2'; return b }, ErrNotSIF},
		"negative count":         {put(headerTotal, math.MaxUint64), ErrLimit},
		"huge count":             {put(headerTotal, 1<<62), ErrLimit},
		"count beyond the table": {put(headerTotal, 49), ErrCorrupt},
		"more free than total":   {put(headerFree, 49), ErrCorrupt},
		"all free":               {put(headerFree, 48), ErrCorrupt},
		"negative free":          {put(headerFree, math.MaxUint64), ErrCorrupt},
		"table outside":          {put(headerOffset, size), ErrCorrupt},
		"table overflows":        {put(headerOffset, math.MaxInt64), ErrCorrupt},
		"negative table":         {put(headerOffset, math.MaxUint64), ErrCorrupt},
		"table in the header":    {put(headerOffset, 1), ErrCorrupt},
		"huge table":             {put(headerDescriptors, math.MaxInt64), ErrCorrupt},
		"negative table size":    {put(headerDescriptors, math.MaxUint64), ErrCorrupt},
		"object outside":         {descr(0, descrOffset, size+1), ErrCorrupt},
		"object too long":        {descr(0, descrSize, size), ErrCorrupt},
		"object overflows":       {descr(0, descrSize, math.MaxInt64), ErrCorrupt},
		"negative object":        {descr(0, descrSize, math.MaxUint64), ErrCorrupt},
		"negative offset":        {descr(0, descrOffset, math.MaxUint64), ErrCorrupt},
		"number taken twice":     {func(b []byte) []byte { b[descriptorTable+descriptorSize+descrID] = 1; return b }, ErrCorrupt},
		"no number":              {func(b []byte) []byte { b[descriptorTable+descrID] = 0; return b }, ErrCorrupt},
		"unknown type":           {func(b []byte) []byte { b[descriptorTable+descrType] = 0x7f; return b }, ErrNoSystem},
		"partition not used":     {func(b []byte) []byte { b[descriptorTable+descrUsed] = 0; return b }, ErrNoSystem},
		"unknown architecture":   {func(b []byte) []byte { copy(b[descriptorTable+descrExtra+8:], "99"); return b }, ErrArchitecture},
		"empty partition":        {descr(0, descrSize, 0), squashfs.ErrCorrupt},
		"partition elsewhere":    {descr(0, descrOffset, 0), squashfs.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			if err := edited(t, good, c.edit); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestASIFThatIsCutOffAnywhereIsRefused(t *testing.T) {
	good := smallSIF(t)
	cuts := []int{0, 1, magicOffset, magicOffset + len(magicNumber), headerSize - 1, headerSize, descriptorTable, descriptorTable + descriptorSize, descriptorTable + 48*descriptorSize - 1}
	for n := descriptorTable + 48*descriptorSize; n < len(good); n += 997 {
		cuts = append(cuts, n)
	}
	for _, n := range append(cuts, len(good)-1) {
		err := try(t, good[:n])
		if !errors.Is(err, ErrNotSIF) && !errors.Is(err, ErrCorrupt) {
			t.Errorf("the first %d of %d bytes: %v", n, len(good), err)
		}
	}
}

func TestTooManyOrTooLargeSignaturesAreRefused(t *testing.T) {
	root := siftest.System(siftest.Squashfs(t, siftest.Tree{"a": ""}))
	sig := func(size int) siftest.Object {
		return siftest.Object{Type: apptainer.DataSignature, Data: make([]byte, size), Options: []apptainer.DescriptorInputOpt{apptainer.OptNoGroup(), apptainer.OptLinkedGroupID(1)}}
	}
	if _, err := Open(t.Context(), source(t, siftest.Write(t, root, sig(maxSignature+1))), amd64); !errors.Is(err, ErrLimit) {
		t.Errorf("large: %v", err)
	}
	many := []siftest.Object{root}
	for range maxSignatures {
		many = append(many, sig(1))
	}
	if _, err := Open(t.Context(), source(t, siftest.Write(t, many...)), amd64); err != nil {
		t.Errorf("as many as are allowed: %v", err)
	}
	if _, err := Open(t.Context(), source(t, siftest.Write(t, append(many, sig(1))...)), amd64); !errors.Is(err, ErrLimit) {
		t.Errorf("one more: %v", err)
	}
}
