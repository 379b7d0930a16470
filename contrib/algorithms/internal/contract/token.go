package contract

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Identity is what the container token says about this run. It is read without
// checking the signature: only the server has the key, and only the server has to
// be convinced.
type Identity struct {
	NodeID         int64  `json:"node_id"`
	OrganizationID int64  `json:"organization_id"`
	CollabID       int64  `json:"collaboration_id"`
	StudyID        *int64 `json:"study_id"`
	StoreID        *int64 `json:"store_id"`
	TaskID         int64  `json:"task_id"`
	Image          string `json:"image"`
	Databases      []struct {
		Label string `json:"label"`
	} `json:"databases"`
}

// ReadIdentity decodes the claims of a container token, whose subject is a JSON
// object and no string.
func ReadIdentity(token string) (*Identity, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("the container token is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("the container token's payload is not base64: %w", err)
	}
	var claims struct {
		Subject *Identity `json:"sub"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, fmt.Errorf("the container token's payload is not as expected: %w", err)
	}
	if claims.Subject == nil {
		return nil, errors.New("the container token names no subject")
	}
	return claims.Subject, nil
}
