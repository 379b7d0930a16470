// Package siftest makes SIF images for tests, with the SIF library and mksquashfs: as
// Apptainer makes them, and as no one should. Only tests may import it.
package siftest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/apptainer/sif/v2/pkg/integrity"
	apptainer "github.com/apptainer/sif/v2/pkg/sif"
	sigstore "github.com/sigstore/sigstore/pkg/signature"

	"github.com/v6node/v6node/sif/internal/imagetest"
)

// Created is when every image here says it was made.
var Created = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// Object is one object of a SIF.
type Object struct {
	Type    apptainer.DataType
	Data    []byte
	Options []apptainer.DescriptorInputOpt
}

// System is a primary system partition with a squashfs.
func System(squashfs []byte) Object {
	return Partition(squashfs, apptainer.FsSquash, apptainer.PartPrimSys, "amd64")
}

// Partition is a partition.
func Partition(data []byte, fs apptainer.FSType, part apptainer.PartType, arch string) Object {
	return Object{apptainer.DataPartition, data, []apptainer.DescriptorInputOpt{apptainer.OptPartitionMetadata(fs, part, arch)}}
}

// JSON is a JSON object with a name, such as oci-config.json.
func JSON(name, text string) Object {
	return Object{apptainer.DataGenericJSON, []byte(text), []apptainer.DescriptorInputOpt{apptainer.OptObjectName(name)}}
}

// Write makes a SIF of the objects, the same for the same objects, and gives its path.
func Write(tb testing.TB, objects ...Object) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "image.sif")
	var inputs []apptainer.DescriptorInput
	for _, o := range objects {
		d, err := apptainer.NewDescriptorInput(o.Type, bytes.NewReader(o.Data), o.Options...)
		try(tb, err)
		inputs = append(inputs, d)
	}
	f, err := apptainer.CreateContainerAtPath(path,
		apptainer.OptCreateWithID("5c7e2b2e-55b1-4a57-9d4e-0d8a4c3a5c11"),
		apptainer.OptCreateWithTime(Created),
		apptainer.OptCreateWithDescriptorCapacity(int64(max(48, len(objects)))),
		apptainer.OptCreateWithLaunchScript("#!/usr/bin/env run-singularity\n"),
		apptainer.OptCreateWithDescriptors(inputs...))
	try(tb, err)
	try(tb, f.UnloadContainer())
	return path
}

// Tree is a root file system: what the files hold, by path. Paths with a slash at the
// end are directories; files below .singularity.d, bin and env are executable.
type Tree map[string]string

// Squashfs makes a squashfs of a tree.
func Squashfs(tb testing.TB, t Tree, args ...string) []byte {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "root")
	try(tb, os.MkdirAll(dir, 0o755))
	for name, text := range t {
		p := filepath.Join(dir, name)
		if name[len(name)-1] == '/' {
			try(tb, os.MkdirAll(p, 0o755))
			continue
		}
		try(tb, os.MkdirAll(filepath.Dir(p), 0o755))
		try(tb, os.WriteFile(p, []byte(text), 0o755))
	}
	f := imagetest.Make(tb, dir, append([]string{"-all-root"}, args...)...)
	b, err := io.ReadAll(f)
	try(tb, err)
	return b
}

// Apptainer is the tree of an image that was built by a definition file with these
// sections.
func Apptainer(environment, runscript string, labels map[string]string) Tree {
	t := Tree{
		".singularity.d/env/01-base.sh":        "#!/bin/sh\n",
		".singularity.d/env/90-environment.sh": "#!/bin/sh\n# Custom environment shell code should follow\n\n" + environment,
		".singularity.d/env/99-base.sh":        "#!/bin/sh\nLD_LIBRARY_PATH=\"${LD_LIBRARY_PATH:-}${LD_LIBRARY_PATH:+:}/.singularity.d/libs\"\nexport LD_LIBRARY_PATH\n",
		"bin/":                                 "", "dev/": "", "etc/": "", "proc/": "", "sys/": "", "tmp/": "",
	}
	if runscript != "" {
		t[".singularity.d/runscript"] = "#!/bin/sh\n" + runscript
	}
	if labels != nil {
		b, _ := json.Marshal(labels) // strings always marshal
		t[".singularity.d/labels.json"] = string(b)
	}
	return t
}

// OCIRunscript is the beginning of the runscript that Apptainer writes for an image out
// of a registry.
const OCIRunscript = "OCI_ENTRYPOINT='\"/bin/echo\"'\nOCI_CMD='\"hello\"'\n"

// OCISIF makes an OCI-SIF. Layers are squashfs images or, with another media type, tars.
func OCISIF(tb testing.TB, config string, layers ...Blob) string {
	tb.Helper()
	return WriteOCI(tb, OCIDocuments(tb, config, layers...), layers...)
}

// Documents are what describes the image in an OCI-SIF.
type Documents struct{ Index, Manifest, Config []byte }

// OCIDocuments makes the documents of an OCI-SIF.
func OCIDocuments(tb testing.TB, config string, layers ...Blob) Documents {
	tb.Helper()
	cfg := Blob{"application/vnd.oci.image.config.v1+json", []byte(config)}
	m := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": cfg.Descriptor()}
	var list []any
	for _, l := range layers {
		list = append(list, l.Descriptor())
	}
	m["layers"] = list
	manifest, err := json.Marshal(m)
	try(tb, err)
	return Documents{OCIIndex(tb, manifest), manifest, cfg.Data}
}

// OCIIndex makes the index for a manifest.
func OCIIndex(tb testing.TB, manifest []byte) []byte {
	tb.Helper()
	d := Blob{"application/vnd.oci.image.manifest.v1+json", manifest}.Descriptor()
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []any{d}})
	try(tb, err)
	return index
}

// WriteOCI makes an OCI-SIF out of documents, whether they fit together or not.
func WriteOCI(tb testing.TB, d Documents, layers ...Blob) string {
	tb.Helper()
	var objects []Object
	for _, l := range layers {
		objects = append(objects, Object{Type: apptainer.DataOCIBlob, Data: l.Data})
	}
	return Write(tb, append(objects, Object{Type: apptainer.DataOCIBlob, Data: d.Config}, Object{Type: apptainer.DataOCIBlob, Data: d.Manifest},
		Object{Type: apptainer.DataOCIRootIndex, Data: d.Index})...)
}

// SquashfsLayer is the media type of OCI-SIF's layers.
const SquashfsLayer = "application/vnd.sylabs.image.layer.v1.squashfs"

// Blob is an OCI blob.
type Blob struct {
	MediaType string
	Data      []byte
}

// Descriptor describes the blob as OCI does.
func (b Blob) Descriptor() map[string]any {
	return map[string]any{"mediaType": b.MediaType, "digest": Digest(b.Data), "size": len(b.Data)}
}

// Digest is the SHA-256 digest.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// PGP makes a key pair, and the armored public key.
func PGP(tb testing.TB) (*openpgp.Entity, []byte) {
	tb.Helper()
	e, err := openpgp.NewEntity("Test", "", "test@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	try(tb, err)
	return e, PublicPGP(tb, e)
}

// PublicPGP is the armored public key.
func PublicPGP(tb testing.TB, e *openpgp.Entity) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	try(tb, err)
	try(tb, e.Serialize(w))
	try(tb, w.Close())
	return b.Bytes()
}

// Ed25519 makes a key pair for DSSE, and the PEM public key.
func Ed25519(tb testing.TB) (sigstore.Signer, []byte) {
	tb.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	try(tb, err)
	s, err := sigstore.LoadED25519Signer(key)
	try(tb, err)
	der, err := x509.MarshalPKIXPublicKey(pub)
	try(tb, err)
	return s, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// Sign signs the image at path, all of it unless the options say otherwise.
func Sign(tb testing.TB, path string, options ...integrity.SignerOpt) {
	tb.Helper()
	Edit(tb, path, func(f *apptainer.FileImage) {
		s, err := integrity.NewSigner(f, options...)
		try(tb, err)
		try(tb, s.Sign())
	})
}

// Edit changes the image at path by the SIF library.
func Edit(tb testing.TB, path string, do func(*apptainer.FileImage)) {
	tb.Helper()
	f, err := apptainer.LoadContainerFromPath(path)
	try(tb, err)
	do(f)
	try(tb, f.UnloadContainer())
}

// Flip changes one byte of a file.
func Flip(tb testing.TB, path string, off int64) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	try(tb, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	try(tb, err)
	b[0] ^= 0x01
	_, err = f.WriteAt(b, off)
	try(tb, err)
	try(tb, f.Close())
}

func try(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
