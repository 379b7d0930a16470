// CRI-O, with which v6node is tested. It is built in its own module's directory
// with the versions of its own go.mod; this file only says which release, and
// the go.sum beside it what that has to be.
module github.com/v6node/v6node/internal/tools/crio

go 1.26.2

require github.com/cri-o/cri-o v1.34.0
