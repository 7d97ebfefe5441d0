package container

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// tmpfsDefaults are the options that Docker gives each tmpfs, and that others undo.
const tmpfsDefaults = "noexec,nosuid,nodev"

// opposites are the options of a tmpfs without a value, each with the one that it undoes.
// Those with none to undo have themselves.
var opposites = map[string]string{
	"exec": "noexec", "noexec": "exec", "suid": "nosuid", "nosuid": "suid", "dev": "nodev", "nodev": "dev",
	"ro": "rw", "rw": "ro", "sync": "async", "async": "sync", "dirsync": "dirsync",
	"atime": "noatime", "noatime": "atime", "diratime": "nodiratime", "nodiratime": "diratime",
	"relatime": "norelatime", "norelatime": "relatime", "strictatime": "nostrictatime", "nostrictatime": "strictatime",
}

// tmpfsValues are the options with a value (tmpfs(5)).
var tmpfsValues = []string{"size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "mpol"}

// ParseTmpfs reads a --tmpfs: PATH[:OPTION[,OPTION]...].
func ParseTmpfs(text string) (Mount, error) {
	m, err := parseTmpfs(text)
	if err != nil {
		return Mount{}, fmt.Errorf("--tmpfs %q: %w", text, err)
	}
	return m, nil
}

func parseTmpfs(text string) (Mount, error) {
	target, words, _ := strings.Cut(text, ":")
	m := Mount{Kind: Tmpfs, Target: target}
	if err := checkTarget(target); err != nil {
		return m, err
	}
	m.Target = path.Clean(target)
	options := strings.Split(tmpfsDefaults, ",")
	for _, word := range strings.Split(words, ",") {
		if word == "" {
			continue
		}
		key, value, set := strings.Cut(word, "=")
		undone, known := opposites[word]
		switch {
		case known:
			options = slices.DeleteFunc(options, func(o string) bool { return o == undone || o == word })
			m.ReadOnly = word == "ro" || m.ReadOnly && word != "rw"
		case !set || value == "" || !slices.Contains(tmpfsValues, key) || strings.ContainsAny(value, ":\x00"):
			return m, fmt.Errorf("%q is not an option of a tmpfs; they are as size=64m, mode=1777, exec, ro", word)
		default:
			options = slices.DeleteFunc(options, func(o string) bool { return strings.HasPrefix(o, key+"=") })
		}
		options = append(options, word)
	}
	m.Options = strings.Join(options, ",")
	return m, nil
}
