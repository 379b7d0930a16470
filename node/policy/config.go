package policy

// BasicsImage is the repository of the reference project's "basics" algorithm, which its user interface
// sends to read the column names of a database.
const BasicsImage = "harbor2.vantage6.ai/algorithms/basics"

// Config is what an administrator allows. The zero value allows everything.
type Config struct {
	// AllowedAlgorithms lists the images that may run; empty means all. An entry is, in this order:
	//   - a digest ("sha256:..."): this image, whatever its name;
	//   - an image reference without any of \ ^ $ * + ? ( ) [ ] { } |: "name" allows all its tags,
	//     "name:tag" that tag and whatever has the same digest, "name@sha256:..." that digest;
	//   - else a regular expression (RE2) which must match a whole spelling of the image: its name without
	//     tag (unless the expression itself speaks of tags or digests), name:tag, or name@sha256:....
	// An entry is about SIF images exactly if it begins with sif: or oras://; a digest is that of an image, of a SIF
	// file, or of the manifest of a SIF file in a registry.
	AllowedAlgorithms []string
	// AllowedStores lists algorithm stores: the address of one, or a regular expression (RE2) which must match a
	// whole address. A task must then come from such a store; empty means that it need not come from any.
	AllowedStores []string
	// EitherListOrStore makes it enough that AllowedAlgorithms or AllowedStores allows a task, where both are
	// given; else both must.
	EitherListOrStore bool
	// AllowedUsers lists user ids ("12") or names. Users and organizations are alternatives: who is in
	// either list may send tasks. Both empty means everyone.
	AllowedUsers []string
	// AllowedOrganizations lists ids ("6") or names of organizations that may send tasks.
	AllowedOrganizations []string
	// AllowBasics: false refuses the basics algorithm, true allows it beside AllowedAlgorithms, nil treats
	// it like any other image.
	AllowBasics *bool
	// RequirePull forbids falling back to a local image when the registry cannot be asked. The policy only
	// carries it; the resolver obeys it.
	RequirePull bool
	// SigningKeys are files with public keys of which one must have signed an image; empty wants no signature. The
	// policy only carries them; the node holds images against them.
	SigningKeys []string
	// Rules bind some of the runs that all this allows, in the order of the file.
	Rules []Rule
}

// Approve is whether a run waits for the administrator's word.
type Approve string

// The ways of approval. The empty one leaves it as it is.
const (
	ApproveManual    Approve = "manual"
	ApproveAutomatic Approve = "automatic"
)

// Rule says what holds for the runs that it matches: those of its image, its organization and its user, as far as
// it names them. Of two rules that match and say something about the same, the later one holds.
type Rule struct {
	Image        string // as an entry of AllowedAlgorithms; "" is every image
	Organization string // id or exact name of the organization that sent the task; "" is every one
	User         int64  // who sent the task; 0 is everyone

	// Databases are the labels that the run may ask for, Functions the methods that it may call. nil leaves it
	// as it is, an empty list allows none.
	Databases *[]string
	Functions *[]string
	Approve   Approve
}
