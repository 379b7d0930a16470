package image

// goldenDigests are the manifests' digests of the images that Apptainer made.
var goldenDigests = map[string]string{
	"docker-derived.sif":      "sha256:07c2819f8ffd45d5650638705a29e0a229693828c0ea9b65fd69b2d2d26b3142",
	"rich-gzip-4k-nofrag.sif": "sha256:4d270ed61e4dc109f95df519ec7e7d7027eda8e5de9422f8681a61c178dff201",
	"rich-gzip.sif":           "sha256:d1561a611349a6737054cd320b4a88d11fa70f9842a474b6d4d0a752ae03cbb6",
	"rich-lz4.sif":            "sha256:35bfd246f72e3d1ce2fa987ecd05f6ee5a0f6ab249bed7fcef9dd78845ca7927",
	"rich-lzo.sif":            "sha256:4d270ed61e4dc109f95df519ec7e7d7027eda8e5de9422f8681a61c178dff201",
	"rich-xz.sif":             "sha256:d1561a611349a6737054cd320b4a88d11fa70f9842a474b6d4d0a752ae03cbb6",
	"rich-zstd.sif":           "sha256:d1561a611349a6737054cd320b4a88d11fa70f9842a474b6d4d0a752ae03cbb6",
	"signed-dsse.sif":         "sha256:07c2819f8ffd45d5650638705a29e0a229693828c0ea9b65fd69b2d2d26b3142",
	"signed-pgp.sif":          "sha256:d1561a611349a6737054cd320b4a88d11fa70f9842a474b6d4d0a752ae03cbb6",
}
