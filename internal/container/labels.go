package container

import (
	"fmt"
	"os"
	"strings"
)

// labels are an image's, with those of files and flags over them.
func labels(image map[string]string, files, flags []string) (map[string]string, error) {
	all := map[string]string{}
	for name, value := range image {
		all[name] = value
	}
	var settings []string
	for _, file := range files {
		lines, err := readLabels(file)
		if err != nil {
			return nil, fmt.Errorf("--label-file %w", err)
		}
		settings = append(settings, lines...)
	}
	for _, text := range append(settings, flags...) {
		name, value, _ := strings.Cut(text, "=")
		if name == "" {
			return nil, fmt.Errorf("--label %q: it has no name; write NAME=VALUE", text)
		}
		all[name] = value
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}

func readLabels(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseLines(file, f, func(_, line string, _ bool) (string, bool) { return line, true })
}
