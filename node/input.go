package node

import (
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/v6node/v6node/node/server"
)

// decodeInput gives a run's input as the algorithm reads it.
func (n *Node) decodeInput(r *server.Run) ([]byte, error) {
	if n.key != nil {
		plain, err := n.key.Decrypt(r.Input)
		if err != nil {
			return nil, refuse(ReasonInput, fmt.Errorf("the input cannot be decrypted with this organization's key: %w: send the task again, encrypted for the organization's current public key", err))
		}
		return plain, nil
	}
	plain, err := base64.StdEncoding.DecodeString(r.Input)
	if err != nil {
		return nil, refuse(ReasonInput, errors.New("the input is not base64: send the task again in the form that this server version wants"))
	}
	return plain, nil
}
