package node

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"strings"

	"github.com/v6node/v6node/internal/plainfile"
	"github.com/v6node/v6node/node/workspace"
)

// headerLimit bounds how much of a csv file is read for its column names.
const headerLimit = 1 << 20

// announceNode tells the server what this node offers, if the configuration
// shares it.
func (n *Node) announceNode(ctx context.Context) {
	if !n.cfg.ShareConfig {
		return
	}
	now := n.settings.Load()
	types, columns, labels := map[string]string{}, map[string][]string{}, []string{}
	for _, d := range now.databases {
		labels = append(labels, d.Label)
		types["db_type_"+d.Label] = d.Type
		path, local := workspace.LocalPath(d.URI)
		if d.Type != "csv" || !local {
			continue
		}
		names, err := csvColumns(path)
		if err != nil {
			n.log.WarnContext(ctx, "the column names of a database could not be read", "database", d.Label, "error", err)
			continue
		}
		columns["columns_"+d.Label] = names
	}
	p := now.config.Policies
	info := map[string]any{
		"encryption":         n.key != nil,
		"allowed_algorithms": "all",
		"database_labels":    labels,
		"database_types":     types,
	}
	for key, list := range map[string][]string{
		"allowed_algorithms": p.AllowedAlgorithms,
		"allowed_users":      p.AllowedUsers,
		"allowed_orgs":       p.AllowedOrganizations,
	} {
		if len(list) > 0 {
			info[key] = list
		}
	}
	if len(columns) > 0 {
		info["database_columns"] = columns
	}
	n.api.EmitNodeInfo(info)
}

// csvColumns reads the first record of a csv file. The separator is the comma,
// or the semicolon or tab where the header has those and no comma.
func csvColumns(path string) (_ []string, err error) {
	f, err := plainfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head, err := io.ReadAll(io.LimitReader(f, headerLimit))
	if err != nil {
		return nil, err
	}
	text := strings.TrimPrefix(string(head), "\uFEFF")
	r := csv.NewReader(strings.NewReader(text))
	if line, _, _ := strings.Cut(text, "\n"); !strings.Contains(line, ",") {
		for _, sep := range ";\t" {
			if strings.ContainsRune(line, sep) {
				r.Comma = sep
				break
			}
		}
	}
	names, err := r.Read()
	if errors.Is(err, io.EOF) {
		return []string{}, nil
	}
	return names, err
}
