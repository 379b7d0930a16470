package squashfs_test

import (
	"testing"

	"github.com/v6node/v6node/sif/internal/imagetest"
	"github.com/v6node/v6node/sif/squashfs"
)

func TestImagesMadeByApptainerReadAsTheKernelShowsThem(t *testing.T) {
	for _, g := range imagetest.Goldens(t) {
		t.Run(g.Name, func(t *testing.T) {
			img, err := squashfs.Open(g.File, g.Offset, g.Size, squashfs.Options{})
			if err != nil {
				t.Fatal(err)
			}
			imagetest.Equal(t, imagetest.List(t, img), g.Nodes)
		})
	}
}
