package runtime

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pullMeter finds out whether a pull moves. CRI has no call for that, and what
// it has is coarse: containerd's ImageFsInfo counts whole unpacked layers, every
// ten seconds. So three things are looked at:
//
//   - ImageFsInfo: layers that have become part of the store;
//   - on containerd, its content service: bytes of the blobs being fetched;
//   - when no blob is being fetched (layers are unpacked, or the runtime is
//     another one), the free space of the file systems concerned.
//
// The last can be moved by anybody who writes there, so it takes a step of 1 MiB
// and is left out while there is something better.
type pullMeter struct {
	c       *Client
	started bool

	layers  uint64            // bytes, from ImageFsInfo
	inodes  uint64            //
	blobs   map[string]uint64 // most bytes seen of each blob, by containerd's name for it
	used    int64             // bytes, of the file systems
	base    int64             // used at the start
	mounts  []string
	foreign bool // no content service there
}

const (
	usedStep      = 1 << 20
	sampleTimeout = 5 * time.Second
	maxBlobs      = 4096
)

func newPullMeter(c *Client) *pullMeter {
	m := &pullMeter{c: c, blobs: map[string]uint64{}}
	if c.info.Load().Name != "containerd" {
		m.foreign = true
		m.mounts = append(m.mounts, "/var/tmp") // where containers/image puts blobs first
	}
	return m
}

// sample returns the bytes taken in so far and whether anything moved since
// the sample before. The first one is the base line.
func (m *pullMeter) sample(ctx context.Context) (bytes uint64, moved bool) {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()

	if r, err := m.c.img.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{}); err == nil {
		var layers, inodes uint64
		mounts := m.mounts[:0:0]
		if m.foreign {
			mounts = append(mounts, "/var/tmp")
		}
		for _, fs := range r.ImageFilesystems {
			layers += fs.GetUsedBytes().GetValue()
			inodes += fs.GetInodesUsed().GetValue()
			if p := fs.GetFsId().GetMountpoint(); p != "" {
				mounts = append(mounts, p)
			}
		}
		if layers != m.layers || inodes != m.inodes {
			m.layers, m.inodes, moved = layers, inodes, true
		}
		m.mounts = mounts
	}

	fetching := false
	if !m.foreign {
		blobs, err := m.c.containerdIngests(ctx)
		if err != nil {
			m.c.log.Debug("containerd's content service does not answer", "error", err)
		}
		for name, n := range blobs {
			fetching = true
			if last, known := m.blobs[name]; (!known || n > last) && len(m.blobs) < maxBlobs {
				m.blobs[name] = n
				moved = true
			}
		}
	}

	used := usedBytes(m.mounts)
	if !m.started {
		m.started, m.used, m.base = true, used, used
		moved = true
	}
	if step := used - m.used; step >= usedStep || step <= -usedStep {
		m.used = used
		if !fetching {
			moved = true
		}
	}

	for _, n := range m.blobs {
		bytes += n
	}
	if m.foreign && used > m.base {
		bytes = uint64(used - m.base)
	}
	return bytes, moved
}

// usedBytes adds up what is used on the distinct file systems of paths.
func usedBytes(paths []string) int64 {
	var sum int64
	seen := map[unix.Fsid]bool{}
	for _, p := range paths {
		var st unix.Statfs_t
		if unix.Statfs(p, &st) != nil || seen[st.Fsid] {
			continue
		}
		seen[st.Fsid] = true
		sum += int64(st.Blocks-st.Bfree) * st.Bsize
	}
	return sum
}

// containerdIngests asks containerd's content service, which lives on the same
// socket, for the blobs being written: name and bytes so far. The two messages
// are taken apart by hand, because the package that defines them brings more
// dependencies than the rest of this room together.
func (c *Client) containerdIngests(ctx context.Context) (map[string]uint64, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "k8s.io")
	var answer []byte
	if err := c.conn.Invoke(ctx, "/containerd.services.content.v1.Content/ListStatuses", []byte(nil), &answer, grpc.ForceCodec(rawCodec{})); err != nil {
		return nil, err
	}
	blobs := map[string]uint64{}
	err := eachField(answer, func(num protowire.Number, status []byte, _ uint64) error {
		if num != 1 {
			return nil
		}
		var name string
		var offset uint64
		err := eachField(status, func(num protowire.Number, b []byte, n uint64) error {
			switch num {
			case 3:
				name = string(b)
			case 4:
				offset = n
			}
			return nil
		})
		blobs[name] = offset
		return err
	})
	return blobs, err
}

// eachField walks over the fields of a protobuf message; f gets the bytes of a
// length-delimited field or the number of a varint.
func eachField(msg []byte, f func(num protowire.Number, b []byte, n uint64) error) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return protowire.ParseError(n)
		}
		msg = msg[n:]
		var b []byte
		var v uint64
		switch typ {
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(msg)
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(msg)
		default:
			n = protowire.ConsumeFieldValue(num, typ, msg)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		msg = msg[n:]
		if err := f(num, b, v); err != nil {
			return err
		}
	}
	return nil
}

// rawCodec passes encoded messages through.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, errors.New("not encoded bytes")
	}
	return b, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return errors.New("not a place for encoded bytes")
	}
	*b = append([]byte(nil), data...)
	return nil
}

func (rawCodec) Name() string { return "proto" }
