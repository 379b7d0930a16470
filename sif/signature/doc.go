package signature

import (
	_ "github.com/ProtonMail/go-crypto/openpgp"
	_ "github.com/apptainer/sif/v2/pkg/integrity"
	_ "github.com/apptainer/sif/v2/pkg/sif"
	_ "github.com/sigstore/sigstore/pkg/signature"
)
