package squashfs

import "runtime"

// Options bound what reading an image may cost. Zero values mean the defaults.
type Options struct {
	// Workers is how many goroutines decompress, each with a block or three in memory.
	// Default: GOMAXPROCS, and at most 32.
	Workers int
	// ReadAhead is how many bytes of decompressed file content may wait for the
	// reader of a Stream. Default: 8 MiB, and never fewer than two blocks a worker.
	ReadAhead int64
	// FragmentCache is how many bytes of decompressed fragment blocks (the ends of
	// files and small files) are kept. Default: 8 MiB, and never fewer than 4 blocks.
	FragmentCache int64
	// MetadataCache is how many bytes of decompressed metadata are kept. Default: 8 MiB.
	MetadataCache int64

	// MaxEntries is how many paths an image may have. Default: 4 194 304.
	MaxEntries int64
	// MaxBytes is how many bytes the regular files of an image may have together,
	// holes included and hard links counted once. Default: 256 GiB.
	MaxBytes int64
	// MaxDepth is how many directories deep an image may be. Default: 1024.
	MaxDepth int
	// MaxPath is how many bytes a path may have. Default: 4096, the kernel's limit.
	MaxPath int
	// MaxXattrBytes is how many bytes the names and values of one inode's extended
	// attributes may have together. Default: 512 KiB.
	MaxXattrBytes int
	// MaxFragmentWork is how many bytes of fragment blocks may be decompressed. One that has
	// to be decompressed again, because others were needed meanwhile, counts again.
	// Default: 64 GiB, and 64 times the image.
	MaxFragmentWork int64
	// MaxLinkBytes is how much memory the first names of files with hard links may take, which
	// are kept until the end. Default: 64 MiB, enough for half a million such files.
	MaxLinkBytes int
}

func (o Options) withDefaults() Options {
	set(&o.Workers, min(runtime.GOMAXPROCS(0), 32))
	set(&o.ReadAhead, 8<<20)
	set(&o.FragmentCache, 8<<20)
	set(&o.MetadataCache, 8<<20)
	set(&o.MaxEntries, 4<<20)
	set(&o.MaxBytes, 256<<30)
	set(&o.MaxDepth, 1024)
	set(&o.MaxPath, 4096)
	set(&o.MaxXattrBytes, 512<<10)
	set(&o.MaxLinkBytes, 64<<20)
	return o
}

func set[T int | int64](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}
