package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

// mirror streams, so that the input may be larger than the memory.
func mirror() (err error) {
	in, err := contract.OpenInput()
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	name, err := contract.Variable("OUTPUT_FILE")
	if err != nil {
		return err
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// letters is an endless text.
type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a' + byte(i%26)
	}
	return len(p), nil
}

func delegate(in *contract.Input) (any, error) {
	n, err := number(in, "bytes", 1<<20)
	if err != nil {
		return nil, err
	}
	var organizations []int64
	if _, err := in.Arg(-1, "organizations", &organizations); err != nil {
		return nil, err
	}
	c, err := contract.NewClient()
	if err != nil {
		return nil, err
	}
	input := func() io.Reader {
		return io.MultiReader(strings.NewReader(`{"method":"mirror","kwargs":{"data":"`), io.LimitReader(letters{}, int64(n)), strings.NewReader(`"}}`))
	}
	sent, err := digest(input())
	if err != nil {
		return nil, err
	}
	task, err := c.CreateTaskFrom("testalgo", organizations, input)
	if err != nil {
		return nil, err
	}
	if err := c.WaitTask(task); err != nil {
		return nil, err
	}
	received := []string{}
	err = c.EachResult(task, func(r io.Reader) error {
		sum, err := digest(r)
		received = append(received, sum)
		return err
	})
	return map[string]any{"sent": sent, "received": received}, err
}

func digest(r io.Reader) (string, error) {
	sum := sha256.New()
	_, err := io.Copy(sum, r)
	return hex.EncodeToString(sum.Sum(nil)), err
}
