package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/v6node/v6node/contrib/algorithms/internal/contract"
)

func partial(in *contract.Input) (*share, error) {
	name, err := column(in)
	if err != nil {
		return nil, err
	}
	databases, err := contract.Databases()
	if err != nil {
		return nil, err
	}
	if len(databases) == 0 {
		return nil, errors.New("the task names no database")
	}
	d := databases[0]
	if d.Type != "csv" {
		return nil, fmt.Errorf("the database %s is of type %q, and only csv is understood", d.Label, d.Type)
	}
	file, err := os.Open(d.URI)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	s, err := sum(file, name)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", d.Label, err)
	}
	return s, nil
}

// sum adds up a column of a CSV file with a header line, in constant memory.
func sum(r io.Reader, column string) (*share, error) {
	rows := csv.NewReader(bufio.NewReaderSize(r, 256<<10))
	rows.ReuseRecord = true
	header, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("reading the header line: %w", err)
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff") // as spreadsheets write it
	at := slices.Index(header, column)
	if at < 0 {
		return nil, fmt.Errorf("there is no column %q", column)
	}
	s := &share{}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		cell := strings.TrimSpace(row[at])
		if cell == "" {
			continue
		}
		v, err := strconv.ParseFloat(cell, 64)
		if err != nil {
			line, _ := rows.FieldPos(at)
			return nil, fmt.Errorf("line %d has no number in the column", line) // the value itself must not leave
		}
		s.Sum += v
		s.Count++
	}
}
