package embedded

import "github.com/v6node/v6node/internal/userns"

// TryOverlay mounts an overlay in a scratch directory below dir, which it
// removes again, as the managed containerd would for its containers: with root,
// or in a user namespace. The error says what does not work.
func TryOverlay(dir string) error {
	return tryOverlay(dir, userns.Inside(), false)
}
