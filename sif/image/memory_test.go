package image

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/v6node/v6node/sif/internal/fuzztest"
	"github.com/v6node/v6node/sif/internal/siftest"
)

// A list of empty objects is the shortest text that becomes the most memory.
func TestListsWithoutEndTakeLittleMemory(t *testing.T) {
	l := squashfsLayer(t, siftest.Tree{"a": "b"})
	good := siftest.OCIDocuments(t, ociImageConfig, l)
	long := "[" + strings.Repeat("{},", maxJSON/3-1000) + "{}]"
	text := strings.Replace(long, "{}", `""`, -1)[:maxJSON/2]
	manifest := bytes.Replace(good.Manifest, []byte(`"layers":[`), []byte(`"layers":`+long+`,"x":[`), 1)
	for name, d := range map[string]siftest.Documents{
		"manifests": {Index: []byte(`{"manifests":` + long + `}`), Manifest: good.Manifest, Config: good.Config},
		"layers":    {Index: siftest.OCIIndex(t, manifest), Manifest: manifest, Config: good.Config},
		"diff_ids":  siftest.OCIDocuments(t, `{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":`+text[:strings.LastIndexByte(text, ',')]+`]}}`, l),
	} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(siftest.WriteOCI(t, d, l))
			if err != nil {
				t.Fatal(err)
			}
			fuzztest.Bounded(t, 64<<20, func() {
				if err := try(t, b); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "more than 1024") {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}
