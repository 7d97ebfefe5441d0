package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/spf13/pflag"

	"github.com/huskvm/husk/internal/image"
)

// imagesFlags are the flags of husk images.
type imagesFlags struct {
	quiet   bool
	noTrunc bool
	digests bool
	format  string
	filters []string
}

func imagesVerb() verb {
	return verb{
		name:  "images",
		args:  "[flags] [REPOSITORY[:TAG]]",
		short: "list the container images that are here",
		long: `Lists the images in the user's store, each name in a line of its own, the newest first.
REPOSITORY and TAG may have *, ? and [...] as a shell's.

--format is json, one object a line, or a Go template over the same fields: Repository,
Tag, Digest, ID, CreatedAt, CreatedSince, Size, Names. A template that begins with the
word table has a line of headings.`,
		examples: `husk images
husk images 'debian:*' --digests
husk images --format '{{.Repository}}:{{.Tag}} {{.Size}}'
husk rmi $(husk images -q --filter dangling=true)`,
		define: func(fs *pflag.FlagSet) runner {
			f := &imagesFlags{}
			fs.BoolVarP(&f.quiet, "quiet", "q", false, "print only IDs")
			fs.BoolVar(&f.noTrunc, "no-trunc", false, "print whole IDs")
			fs.BoolVar(&f.digests, "digests", false, "print digests, too")
			fs.StringVar(&f.format, "format", "", "print in this `FORMAT`: table, json, a Go template, or table and a template")
			fs.StringArrayVarP(&f.filters, "filter", "f", nil, "list only what fits a `FILTER`: dangling=true|false, reference=PATTERN, label=KEY[=VALUE]; repeatable")
			return f.run
		},
	}
}

// An imageRow is a line of husk images. Its fields are those of templates.
type imageRow struct {
	Repository, Tag, Digest, ID, CreatedAt, CreatedSince, Size string
	Names                                                      []string

	image *image.Image
}

func (f *imagesFlags) run(_ context.Context, e *env, args []string) (int, error) {
	if len(args) > 1 {
		return 0, usagef("unexpected argument %q", args[1])
	}
	filters := f.filters
	if len(args) == 1 {
		filters = append(filters, "reference="+args[0])
	}
	s, err := openImages(e)
	if err != nil {
		return 0, err
	}
	list, err := s.List()
	if err != nil {
		return 0, err
	}
	rows := []imageRow{}
	for _, i := range list {
		for _, row := range f.rows(i, time.Now()) {
			fits, err := row.fits(filters)
			if err != nil {
				return 0, err
			}
			if fits {
				rows = append(rows, row)
			}
		}
	}
	return exitOK, f.print(e.stdout, rows)
}

// none is what is shown for what there is not.
const none = "<none>"

// rows are the lines of an image: one for each name, or for each digest that has none.
func (f *imagesFlags) rows(i *image.Image, now time.Time) (rows []imageRow) {
	base := imageRow{
		Repository: none, Tag: none, Digest: none, ID: i.ID.String(), CreatedAt: "N/A", CreatedSince: "N/A",
		Size: humanSize(i.Size), Names: i.Names, image: i,
	}
	if !f.noTrunc {
		base.ID = i.ID.Hex[:12]
	}
	if created := i.Config.Created.Time; !created.IsZero() {
		base.CreatedAt = created.Local().Format("2006-01-02 15:04:05 -0700 MST")
		base.CreatedSince = humanAge(now.Sub(created))
	}
	digests := map[string]string{} // of repositories
	for _, d := range i.Digests {
		repository, digest, _ := strings.Cut(d, "@")
		if digests[repository] == "" { // the newest comes first
			digests[repository] = digest
		}
	}
	named := map[string]bool{}
	for _, name := range i.Names {
		row := base
		colon := strings.LastIndexByte(name, ':')
		row.Repository, row.Tag = name[:colon], name[colon+1:]
		if d := digests[row.Repository]; d != "" {
			row.Digest = d
		}
		named[row.Repository] = true
		rows = append(rows, row)
	}
	for _, d := range i.Digests {
		row := base
		row.Repository, row.Digest, _ = strings.Cut(d, "@")
		if !named[row.Repository] {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		rows = append(rows, base)
	}
	return rows
}

// fits tells whether a line is to be shown.
func (r imageRow) fits(filters []string) (bool, error) {
	for _, filter := range filters {
		key, value, _ := strings.Cut(filter, "=")
		var fits bool
		switch key {
		case "dangling":
			if value != "true" && value != "false" {
				return false, usagef("--filter %s: must be dangling=true or dangling=false", filter)
			}
			fits = (r.Tag == none) == (value == "true")
		case "reference":
			var err error
			if fits, err = r.called(value); err != nil {
				return false, usagef("%q: %w", value, err)
			}
		case "label":
			label, want, exact := strings.Cut(value, "=")
			have, ok := r.image.Config.Config.Labels[label]
			fits = ok && (!exact || have == want)
		default:
			return false, usagef("--filter %q: must begin with dangling=, reference= or label=", filter)
		}
		if !fits {
			return false, nil
		}
	}
	return true, nil
}

// called tells whether a line's name fits a pattern, which may be as short or as long as
// people write names.
func (r imageRow) called(pattern string) (bool, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return false, err
	}
	names := []string{r.Repository, r.Repository + ":" + r.Tag, r.Repository + "@" + r.Digest}
	if ref, err := image.ParseReference(r.Repository); err == nil {
		whole := ref.Registry + "/" + ref.Repository
		names = append(names, whole, whole+":"+r.Tag)
	}
	for _, name := range names {
		if fits, _ := path.Match(pattern, name); fits {
			return true, nil
		}
	}
	return false, nil
}

// print prints the lines as the flags say.
func (f *imagesFlags) print(w io.Writer, rows []imageRow) error {
	words, isTable := strings.CutPrefix(f.format, "table")
	words = strings.TrimSpace(words)
	switch {
	case f.quiet && f.format == "":
		seen := map[string]bool{}
		for _, r := range rows {
			if !seen[r.ID] {
				fmt.Fprintln(w, r.ID)
			}
			seen[r.ID] = true
		}
		return nil
	case f.format == "json":
		for _, r := range rows {
			text, err := json.Marshal(r)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s\n", text)
		}
		return nil
	case f.format == "" || isTable && words == "":
		words, isTable = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}", true
		if f.digests {
			words = strings.Replace(words, "{{.Tag}}", "{{.Tag}}\t{{.Digest}}", 1)
		}
	case !isTable:
		words = f.format
	}
	return printTemplate(w, words, isTable, rows)
}

// printTemplate prints each line by a template.
func printTemplate(w io.Writer, words string, isTable bool, rows []imageRow) error {
	unescaped := strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(words)
	t, err := template.New("--format").Funcs(templateFuncs()).Parse(unescaped)
	if err != nil {
		return usagef("--format: %w", err)
	}
	if isTable {
		table := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
		defer func() { _ = table.Flush() }()
		w = table
		headings := imageRow{
			Repository: "REPOSITORY", Tag: "TAG", Digest: "DIGEST", ID: "IMAGE ID",
			CreatedAt: "CREATED AT", CreatedSince: "CREATED", Size: "SIZE", Names: []string{"NAMES"},
		}
		rows = append([]imageRow{headings}, rows...)
	}
	for _, r := range rows {
		if err := t.Execute(w, r); err != nil {
			return usagef("--format: %w", err)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// templateFuncs are what Docker's templates can call besides Go's own.
func templateFuncs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			text, err := json.Marshal(v)
			return string(text), err
		},
		"join":  strings.Join,
		"split": strings.Split,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
	}
}
