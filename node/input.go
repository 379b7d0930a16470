package node

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/v6node/v6node/node/server"
)

// decodeInput gives a run's input as the algorithm reads it: a JSON object.
func (n *Node) decodeInput(r *server.Run) ([]byte, error) {
	plain, err := n.plainInput(r)
	if err != nil {
		return nil, err
	}
	// A message for another key may by chance look like a short text, so what
	// it says is looked at as well.
	if text := bytes.TrimLeft(plain, " \t\r\n"); len(text) == 0 || text[0] != '{' || !json.Valid(plain) {
		return nil, refuse(ReasonInput, errors.New("the input is not a JSON object: send the task again with an input such as {\"method\": \"...\"}"))
	}
	return plain, nil
}

// functionFor is the method that a run's input names. The input, which may be long
// and encrypted, is read for that no more than once.
func (n *Node) functionFor(a *activeRun, r *server.Run) (string, error) {
	if a.function == nil {
		input, err := n.decodeInput(r)
		if err != nil {
			return "", err
		}
		a.function = new(functionOf(input))
	}
	return *a.function, nil
}

func (n *Node) plainInput(r *server.Run) ([]byte, error) {
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
