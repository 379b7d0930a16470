package node

import (
	"context"
	"strings"

	"github.com/v6node/v6node/node/image"
	"github.com/v6node/v6node/node/image/imageref"
	"github.com/v6node/v6node/runtime"
)

// Images is what the node needs of a runtime's image store. runtime.Client
// implements it.
type Images interface {
	// Image returns an image that the store holds, or ErrImageNotFound.
	Image(ctx context.Context, ref string) (*runtime.Image, error)
	// PullImage fetches an image; calls for one reference share one pull.
	PullImage(ctx context.Context, ref string, auth *runtime.Auth, o runtime.PullOptions) (*runtime.Image, error)
	// RemoveImage deletes one; one that is gone is no error.
	RemoveImage(ctx context.Context, ref string) error
}

// LocalImages tells a resolver which images the runtime's store holds. What a
// runtime has pulled fits its machine.
func LocalImages(images Images) image.LocalFunc {
	return func(ctx context.Context, ref string) (digest string, platformOK, found bool) {
		img, err := images.Image(ctx, ref)
		if err != nil {
			return "", false, false
		}
		want, err := imageref.Parse(ref)
		if err != nil {
			return "", false, false
		}
		for _, d := range img.RepoDigests {
			name, digest, ok := strings.Cut(d, "@")
			if ok && name == want.Name() {
				return digest, true, true
			}
		}
		return "", false, false
	}
}

// userOf is the user as whom an image's algorithm runs, where that is known
// without looking into the image.
func userOf(img *runtime.Image) (uid int64, known bool) {
	switch {
	case img.UID != nil:
		return *img.UID, true
	case img.Username == "", img.Username == "root":
		return 0, true
	}
	return 0, false
}
