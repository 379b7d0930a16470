package signature

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/apptainer/sif/v2/pkg/integrity"
	apptainer "github.com/apptainer/sif/v2/pkg/sif"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
)

// ErrRefused is what every refusal by Verify wraps. What is not a refusal is a failure
// to read, or the end of the context.
var ErrRefused = errors.New("signature not accepted")

// Kinds of refusal, for errors.Is.
var (
	// ErrUnsigned: the image has no signature at all.
	ErrUnsigned = errors.New("it is not signed")
	// ErrPartlySigned: some objects are not covered by any signature.
	ErrPartlySigned = errors.New("it is only partly signed")
	// ErrUntrusted: it is signed, but not by a trusted key, or with a key that has
	// expired or was revoked.
	ErrUntrusted = errors.New("it is not signed by a trusted key")
	// ErrTampered: it is not what was signed.
	ErrTampered = errors.New("it was changed after it was signed")
)

func refuse(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %w: %s", ErrRefused, kind, fmt.Sprintf(format, args...))
}

// Verify checks that all objects of the image, and among them those in used, are signed
// by trusted keys, and gives the names of these keys. The image must not change until
// it has been used, which image.Source sees to.
func Verify(ctx context.Context, f *apptainer.FileImage, used []uint32, k *Keys) ([]string, error) {
	groups, err := groupsOf(f)
	if err != nil {
		return nil, err
	}
	verified := map[uint32]bool{}
	var signers []string
	for _, g := range groups {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		who, objects, err := verifyGroup(ctx, f, g, k)
		if err != nil {
			return nil, err
		}
		signers = append(signers, who...)
		for _, id := range objects {
			verified[id] = true
		}
	}
	for _, id := range used {
		if !verified[id] {
			return nil, refuse(ErrPartlySigned, "object %d has no signature", id)
		}
	}
	slices.Sort(signers)
	return slices.Compact(signers), nil
}

// groupsOf lists the groups of objects. Only signatures may be in none.
func groupsOf(f *apptainer.FileImage) ([]uint32, error) {
	var groups []uint32
	signatures, loose := 0, uint32(0)
	f.WithDescriptors(func(d apptainer.Descriptor) bool {
		switch {
		case d.DataType() == apptainer.DataSignature:
			signatures++
		case d.GroupID() == 0:
			loose = d.ID()
		}
		if d.GroupID() != 0 && !slices.Contains(groups, d.GroupID()) {
			groups = append(groups, d.GroupID())
		}
		return false
	})
	switch {
	case signatures == 0:
		return nil, refuse(ErrUnsigned, "sign it with apptainer sign")
	case loose != 0:
		return nil, refuse(ErrPartlySigned, "object %d belongs to no group, so that no signature can cover it", loose)
	}
	slices.Sort(groups)
	return groups, nil
}

// verifyGroup looks for a valid signature of the whole group by a trusted key.
func verifyGroup(ctx context.Context, f *apptainer.FileImage, group uint32, k *Keys) (signers []string, objects []uint32, err error) {
	var failures []error
	keep := func(r integrity.VerifyResult) bool {
		if err := r.Error(); err != nil {
			failures = append(failures, err)
			return true // another signature may be the right one
		}
		signers = append(signers, signersOf(r)...)
		for _, d := range r.Verified() {
			objects = append(objects, d.ID())
		}
		return true
	}
	ring := k.pgp
	if ring == nil {
		ring = openpgp.EntityList{} // so that a PGP signature is untrusted, and not an error
	}
	err = guarded(func() error {
		v, err := integrity.NewVerifier(f,
			integrity.OptVerifyGroup(group),
			integrity.OptVerifyWithKeyRing(ring),
			integrity.OptVerifyWithVerifier(append([]sigstore.Verifier{nobody{}}, k.verifiers...)...),
			integrity.OptVerifyWithContext(ctx),
			integrity.OptVerifyCallback(keep))
		if err != nil {
			return err
		}
		return v.Verify()
	})
	switch {
	case errors.Is(err, &integrity.SignatureNotFoundError{}):
		return nil, nil, refuse(ErrPartlySigned, "the group of objects %d has no signature that covers descriptors", group)
	case err != nil:
		return nil, nil, refuse(ErrUntrusted, "a signature cannot be read: %v", err)
	case len(objects) == 0:
		return nil, nil, classify(failures)
	}
	return signers, objects, nil
}

// classify names the reason for which none of the signatures counts: what a trusted
// key's signature says about the image is worth more than that others are unknown.
func classify(failures []error) error {
	worst := refuse(ErrUntrusted, "none of its signatures is by a configured key")
	for _, err := range failures {
		var read *fs.PathError
		var invalid *integrity.SignatureNotValidError
		var object *integrity.ObjectIntegrityError
		var descriptor *integrity.DescriptorIntegrityError
		var broken pgperrors.SignatureError
		switch {
		case errors.As(err, &read):
			return err
		case errors.Is(err, integrity.ErrHeaderIntegrity), errors.As(err, &object), errors.As(err, &descriptor):
			return refuse(ErrTampered, "%v", err)
		case errors.As(err, &broken):
			worst = refuse(ErrTampered, "%v", err)
		case errors.Is(err, pgperrors.ErrKeyExpired), errors.Is(err, pgperrors.ErrKeyRevoked), errors.Is(err, pgperrors.ErrSignatureExpired):
			worst = refuse(ErrUntrusted, "%v", err)
		case errors.As(err, &invalid):
			// Unknown key, or a DSSE envelope that no key fits.
		case strings.Contains(err.Error(), "not signed"):
			// The library has no type for it.
			worst = refuse(ErrPartlySigned, "%v", err)
		default:
			// Objects that the signature names are missing, or it names another key.
			worst = fmt.Errorf("%w: %w: %w", ErrRefused, ErrTampered, err)
		}
	}
	return worst
}

func signersOf(r integrity.VerifyResult) []string {
	var names []string
	if e := r.Entity(); e != nil {
		names = append(names, pgpName(e))
	}
	for _, pub := range r.Keys() {
		if der, err := x509.MarshalPKIXPublicKey(pub); err == nil {
			names = append(names, nameOf(der))
		}
	}
	return names
}

// nobody accepts no signature. With it the library has a key for DSSE even where none
// is trusted, and then treats such a signature as untrusted.
type nobody struct{}

func (nobody) PublicKey(...sigstore.PublicKeyOption) (crypto.PublicKey, error) {
	return ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)), nil
}

func (nobody) VerifySignature(io.Reader, io.Reader, ...sigstore.VerifyOption) error {
	return errors.New("not a trusted key")
}
