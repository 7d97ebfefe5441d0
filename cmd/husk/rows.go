package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
)

// formatFuncs are what templates may call besides Go's own.
func formatFuncs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			err := e.Encode(v)
			return strings.TrimSuffix(b.String(), "\n"), err
		},
		"join": strings.Join, "split": strings.Split, "upper": strings.ToUpper, "lower": strings.ToLower, "println": fmt.Sprintln,
	}
}

// parseFormat reads a template of --format.
func parseFormat(text string) (*template.Template, error) {
	t, err := template.New("--format").Funcs(formatFuncs()).Parse(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text))
	if err != nil {
		return nil, usageError{fmt.Errorf("--format: %w", err)}
	}
	return t, nil
}

// printRows prints a line for each row: "json", or a template, behind "table " with the titles of
// its fields above, which heads has under the same names.
func printRows[T any](w io.Writer, format string, heads any, rows []T) error {
	if format == "json" {
		format = "{{json .}}"
	}
	format, table := strings.CutPrefix(format, "table ")
	t, err := parseFormat(format)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if table {
		if err := t.Execute(out, heads); err != nil {
			return fmt.Errorf("--format: %w", err)
		}
		fmt.Fprintln(out)
	}
	for _, r := range rows {
		if err := t.Execute(out, r); err != nil {
			return fmt.Errorf("--format: %w", err)
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}
