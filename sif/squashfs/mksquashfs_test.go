package squashfs_test

import (
	"testing"

	"github.com/v6node/v6node/sif/internal/imagetest"
)

func TestImagesOfEveryKindReadAsTheDirectoryTheyWereMadeFrom(t *testing.T) {
	sources := make(map[int]*imagetest.Source)
	for _, v := range imagetest.Variants() {
		if sources[v.BlockSize] == nil {
			sources[v.BlockSize] = imagetest.NewSource(t, v.BlockSize)
		}
		src := sources[v.BlockSize]
		t.Run(v.Name, func(t *testing.T) {
			f := src.Image(t, v.Args...)
			got := imagetest.List(t, imagetest.Open(t, f))
			t.Run("as the source", func(t *testing.T) {
				imagetest.Equal(t, got, v.Want(src))
			})
			t.Run("as the kernel shows it", func(t *testing.T) {
				imagetest.Equal(t, got, imagetest.ListDir(t, imagetest.Mount(t, f)))
			})
		})
	}
}

func TestAnImageWithoutExtendedAttributesReadsWithoutThem(t *testing.T) {
	src := imagetest.NewSource(t, 128<<10)
	want := imagetest.WithoutXattrs(src.Nodes)
	imagetest.Equal(t, imagetest.List(t, imagetest.Open(t, src.Image(t, "-no-xattrs"))), want)
}
