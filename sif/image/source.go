package image

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	chunkSize = 256 << 10
	slots     = 32 // checked chunks that are kept: 8 MiB
	tagSize   = 16
)

// Source is an open SIF file whose bytes cannot change unnoticed.
//
// Opening it reads the file once, for its SHA-256 and for a keyed checksum of each
// chunk. Every later read checks the chunks it touches, so that what is verified and
// converted is what the digest says, whoever writes to the file meanwhile. The
// checksum is GMAC under a key that no one else knows; it costs a small part of what
// hashing everything a second time would.
//
// ReadAt may be called by many goroutines at once.
type Source struct {
	f      *os.File
	size   int64
	state  State
	digest string
	mac    cipher.AEAD
	tags   []byte
	slots  [slots]slot
}

// slot holds one checked chunk.
type slot struct {
	mu   sync.Mutex
	held int64 // the chunk's number and 1; 0: none
	n    int
	data []byte
}

// State is what tells cheaply whether a file is still the same.
type State struct {
	Device, Inode  uint64
	Size           int64
	MTime, CTime   int64 // nanoseconds since 1970
	ModeAndLinkage uint32
}

// StateOf asks for the state of an open file, which must be a regular one.
func StateOf(f *os.File) (State, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return State{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return State{}, fmt.Errorf("%w: %s is not a regular file", ErrNotSIF, f.Name())
	}
	return State{Device: st.Dev, Inode: st.Ino, Size: st.Size, MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano(), ModeAndLinkage: st.Mode}, nil
}

// NewSource reads the file and takes it over: Close closes it, and so does NewSource
// when it fails. progress, which may be nil, is told how many bytes have been read.
func NewSource(ctx context.Context, f *os.File, maxBytes int64, progress func(int64)) (*Source, error) {
	s := &Source{f: f}
	if err := s.read(ctx, maxBytes, progress); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func (s *Source) read(ctx context.Context, maxBytes int64, progress func(int64)) error {
	var err error
	if s.state, err = StateOf(s.f); err != nil {
		return err
	}
	if s.size = s.state.Size; maxBytes > 0 && s.size > maxBytes {
		return tooMuch("the file has %d bytes, %d are allowed", s.size, maxBytes)
	}
	// A file without the magic number is not worth reading to its end.
	magic := make([]byte, magicOffset+len(magicNumber))
	if _, err := s.f.ReadAt(magic, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the SIF file: %w", err)
	}
	if string(magic[magicOffset:]) != magicNumber {
		return ErrNotSIF
	}
	key := make([]byte, 16)
	rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	if s.mac, err = cipher.NewGCM(block); err != nil {
		return err
	}
	hash := sha256.New()
	buf := make([]byte, chunkSize)
	s.tags = make([]byte, 0, tagSize*((s.size+chunkSize-1)/chunkSize))
	for off := int64(0); off < s.size; off += chunkSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(chunkSize, s.size-off)]
		if err := s.fill(b, off); err != nil {
			return err
		}
		hash.Write(b)
		s.tags = s.tag(s.tags, off/chunkSize, b)
		if progress != nil {
			progress(off + int64(len(b)))
		}
	}
	s.digest = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	return s.Unchanged()
}

func (s *Source) tag(dst []byte, chunk int64, b []byte) []byte {
	var nonce [12]byte
	binary.BigEndian.PutUint64(nonce[4:], uint64(chunk))
	return s.mac.Seal(dst, nonce[:], nil, b)
}

// fill reads b from the file. An early end means that the file became shorter.
func (s *Source) fill(b []byte, off int64) error {
	n, err := s.f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return ErrChanged
	}
	return fmt.Errorf("read the SIF file: %w", err)
}

// Digest is the file's SHA-256, as "sha256:" and 64 hexadecimal digits.
func (s *Source) Digest() string { return s.digest }

// Size is the file's length in bytes.
func (s *Source) Size() int64 { return s.size }

// State is the file's state when it was read.
func (s *Source) State() State { return s.state }

// Unchanged gives ErrChanged when the file is no longer what it was when it was opened.
func (s *Source) Unchanged() error {
	now, err := StateOf(s.f)
	if err != nil {
		return err
	}
	if now != s.state {
		return ErrChanged
	}
	return nil
}

// Close closes the file.
func (s *Source) Close() error { return s.f.Close() }

// ReadAt reads as io.ReaderAt says; bytes that changed are ErrChanged.
func (s *Source) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read of a SIF file at a negative offset")
	}
	n := 0
	for n < len(p) {
		if off >= s.size {
			return n, io.EOF
		}
		k, err := s.copyChunk(p[n:], off)
		if err != nil {
			return n, err
		}
		n += k
		off += int64(k)
	}
	return n, nil
}

// copyChunk copies what one chunk has of the bytes at off.
func (s *Source) copyChunk(p []byte, off int64) (int, error) {
	chunk := off / chunkSize
	c := &s.slots[chunk%slots]
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != chunk+1 {
		if err := s.load(c, chunk); err != nil {
			return 0, err
		}
	}
	return copy(p, c.data[off-chunk*chunkSize:c.n]), nil
}

func (s *Source) load(c *slot, chunk int64) error {
	if c.data == nil {
		c.data = make([]byte, chunkSize)
	}
	c.held = 0
	start := chunk * chunkSize
	c.n = int(min(chunkSize, s.size-start))
	b := c.data[:c.n]
	if err := s.fill(b, start); err != nil {
		return err
	}
	var tag [tagSize]byte
	if string(s.tag(tag[:0], chunk, b)) != string(s.tags[tagSize*chunk:tagSize*(chunk+1)]) {
		return ErrChanged
	}
	c.held = chunk + 1
	return nil
}
