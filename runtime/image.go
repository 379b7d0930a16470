package runtime

import (
	"context"
	"regexp"
	"slices"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Auth is what a registry wants to see. Not every runtime uses every field:
// containerd knows no RegistryToken, CRI-O no Server.
type Auth struct {
	Username, Password, IdentityToken, RegistryToken string
	// Server, "https://host[:port]", is the only one that is to see it. "" is all
	// that are asked, mirrors too.
	Server string
}

// String hides the secrets from logs.
func (*Auth) String() string { return "(registry credentials)" }

// GoString hides the secrets from logs.
func (a *Auth) GoString() string { return a.String() }

func (a *Auth) cri() *cri.AuthConfig {
	if a == nil {
		return nil
	}
	return &cri.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken, ServerAddress: a.Server}
}

// Image is an image in the runtime's store.
type Image struct {
	ID                    string // digest of its configuration
	RepoTags, RepoDigests []string
	Size                  uint64 // bytes, as the runtime counts them
	UID                   *int64 // the user it starts as, if given as a number
	Username              string // or as a name
	Pinned                bool   // the runtime never collects it
}

func newImage(i *cri.Image) *Image {
	out := &Image{
		ID:          i.Id,
		RepoTags:    i.RepoTags,
		RepoDigests: i.RepoDigests,
		Size:        i.Size,
		Username:    i.Username,
		Pinned:      i.Pinned,
	}
	if i.Uid != nil {
		uid := i.Uid.Value
		out.UID = &uid
	}
	return out
}

var pinned = regexp.MustCompile(`^([^@\s]+@)?sha256:[0-9a-f]{64}$|^[0-9a-f]{64}$`)

// isPinned says whether ref names one image for ever: by a digest, or by an ID.
func isPinned(ref string) bool { return pinned.MatchString(ref) }

// stored is a reference to what the runtime has, as each one understands it:
// containerd takes an ID with and without its algorithm, CRI-O only without.
func stored(ref string) string {
	if id, ok := strings.CutPrefix(ref, "sha256:"); ok && isPinned(id) {
		return id
	}
	return ref
}

// Image looks an image up in the runtime's store, by any name the runtime
// understands. ErrImageNotFound if it is not there.
func (c *Client) Image(ctx context.Context, ref string) (*Image, error) {
	op := "look up the image " + oneLine(ref)
	r, err := call(ctx, c, op, c.img.ImageStatus, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: stored(ref)}})
	if err != nil {
		return nil, imageGone(err)
	}
	if r.GetImage() == nil {
		return nil, &Error{Op: op, Kind: ErrImageNotFound, text: "the runtime does not have it; pull it first"}
	}
	return newImage(r.Image), nil
}

// imageGone makes ErrNotFound of a call about an image ErrImageNotFound.
func imageGone(err error) error {
	if e, ok := err.(*Error); ok && e.Kind == ErrNotFound {
		e.Kind = ErrImageNotFound
	}
	return err
}

// ListImages returns all images in the runtime's store.
func (c *Client) ListImages(ctx context.Context) ([]*Image, error) {
	r, err := call(ctx, c, "list the images", c.img.ListImages, &cri.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	all := make([]*Image, 0, len(r.Images))
	for _, i := range r.Images {
		all = append(all, newImage(i))
	}
	return all, nil
}

// RemoveImage removes an image with all its names. One that is not there is no
// error. Some runtimes keep one that a container has: then the error is
// ErrImageInUse.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	_, err := call(ctx, c, "remove the image "+oneLine(ref), c.img.RemoveImage, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: stored(ref)}})
	return unlessGone(err)
}

// ImageDirectories returns the directories in which the runtime keeps its images,
// as it names them: they are on file systems of the machine that it runs on.
func (c *Client) ImageDirectories(ctx context.Context) ([]string, error) {
	r, err := call(ctx, c, "ask for the file systems of the images", c.img.ImageFsInfo, &cri.ImageFsInfoRequest{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range r.ImageFilesystems {
		if m := f.GetFsId().GetMountpoint(); m != "" && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out, nil
}
