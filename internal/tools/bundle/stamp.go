package main

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// stamp remembers what each program in the bundle was made from: one line
// each, the program's name and its recipe. It is written after every program,
// so an interrupted build does not repeat what it finished.
type stamp struct {
	path    string
	recipes map[string]string
}

func readStamp(path string) (*stamp, error) {
	s := &stamp{path: path, recipes: map[string]string{}}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, recipe, ok := strings.Cut(lines.Text(), " "); ok {
			s.recipes[name] = recipe
		}
	}
	return s, lines.Err()
}

func (s *stamp) set(name, recipe string) error {
	s.recipes[name] = recipe
	var lines []string
	for n, r := range s.recipes {
		lines = append(lines, n+" "+r+"\n")
	}
	slices.Sort(lines)
	tmp := s.path + ".new"
	if err := os.WriteFile(tmp, []byte(strings.Join(lines, "")), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, s.path)
}
