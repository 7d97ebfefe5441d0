package container

import (
	"encoding/csv"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// A Kind is what a mount shows.
type Kind string

// The kinds, by the names that --mount has for them.
const (
	Bind   Kind = "bind"   // a file or folder of the host
	Volume Kind = "volume" // a folder that husk keeps, or one that is the machine's alone
	Tmpfs  Kind = "tmpfs"
)

// A Mount is what a -v, a --mount or a --tmpfs asks for.
type Mount struct {
	Kind     Kind
	Source   string // a path as it was given, or a volume's name; "" for a volume without one
	Target   string // absolute and clean
	ReadOnly bool
	// Make says that a folder is made where there is nothing of the host's: -v does.
	Make    bool
	Options string // a tmpfs's
}

// volumeName is the form of a volume's name, which tells it from a path.
var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// ParseVolume reads a -v: [SOURCE:]TARGET[:OPTION[,OPTION]...]. SOURCE is a path of the host
// if it begins with / or a dot, and else the name of a volume.
func ParseVolume(text string) (Mount, error) {
	m, err := parseVolume(text)
	if err != nil {
		return Mount{}, fmt.Errorf("--volume %q: %w", text, err)
	}
	return m, nil
}

func parseVolume(text string) (Mount, error) {
	words := strings.Split(text, ":")
	m := Mount{Kind: Volume, Target: words[len(words)-1]}
	for _, w := range words {
		if w == "" {
			return m, fmt.Errorf("a part of it is empty; write HOST:GUEST, HOST:GUEST:ro or NAME:GUEST")
		}
	}
	switch len(words) {
	case 1:
	case 2, 3:
		m.Source, m.Target = words[0], words[1]
		if m.Source[0] == '/' || m.Source[0] == '.' {
			m.Kind, m.Make = Bind, true
		}
	default:
		return m, fmt.Errorf("too many colons; a path with one in it goes into --mount type=bind,source=…,target=…")
	}
	if len(words) == 3 {
		if err := m.mode(words[2]); err != nil {
			return m, err
		}
	}
	return m, m.check()
}

// mode is what may stand behind the second colon of a -v. What is about sharing between a
// host's containers, or a host other than Linux, changes nothing for a guest.
func (m *Mount) mode(words string) error {
	group := map[string]string{
		"ro": "access", "rw": "access", "z": "label", "Z": "label", "nocopy": "copy",
		"consistent": "consistency", "cached": "consistency", "delegated": "consistency", "default": "consistency",
		"private": "propagation", "rprivate": "propagation",
	}
	seen := map[string]bool{}
	for _, w := range strings.Split(words, ",") {
		switch g := group[w]; {
		case w == "shared" || w == "rshared" || w == "slave" || w == "rslave":
			return fmt.Errorf("%q: mounts do not travel between this host and a guest, which has a kernel of its own; leave it out", w)
		case g == "":
			return fmt.Errorf("%q is not an option of a volume; say ro or rw", w)
		case seen[g]:
			return fmt.Errorf("%q: it contradicts or repeats what stands before it", words)
		case w == "nocopy" && m.Kind == Bind:
			return fmt.Errorf("nocopy is for volumes with a name")
		default:
			seen[g] = true
		}
		m.ReadOnly = m.ReadOnly || w == "ro"
	}
	return nil
}

// check looks at what all forms have, and cleans the target.
func (m *Mount) check() error {
	if err := checkTarget(m.Target); err != nil {
		return err
	}
	m.Target = path.Clean(m.Target)
	switch {
	case strings.ContainsRune(m.Source, 0):
		return fmt.Errorf("the source has a NUL in it")
	case m.Kind == Volume && m.Source != "" && !volumeName.MatchString(m.Source):
		return fmt.Errorf("%q is neither a path, which begins with / or ./, nor a volume's name, which is two or more letters, digits and _.-, the first a letter or digit", m.Source)
	}
	return nil
}

// checkTarget looks at a path in the guest.
func checkTarget(target string) error {
	switch {
	case !path.IsAbs(target):
		return fmt.Errorf("the path in the guest, %q, is not absolute; it must begin with /", target)
	case path.Clean(target) == "/":
		return fmt.Errorf("the guest's root cannot be replaced; name a folder below it")
	case strings.ContainsRune(target, 0):
		return fmt.Errorf("the path in the guest has a NUL in it")
	}
	return nil
}

// ParseMount reads a --mount: KEY=VALUE separated by commas, as in a line of a CSV file, so
// that a value with a comma goes in double quotes around key and value.
func ParseMount(text string) (Mount, error) {
	m, err := parseMount(text)
	if err != nil {
		return Mount{}, fmt.Errorf("--mount %q: %w", text, err)
	}
	return m, nil
}

func parseMount(text string) (Mount, error) {
	reader := csv.NewReader(strings.NewReader(text))
	fields, err := reader.Read()
	if err != nil {
		return Mount{}, fmt.Errorf("not a list of KEY=VALUE with commas between")
	}
	if strings.ContainsAny(text, "\n\r") {
		return Mount{}, fmt.Errorf("it has more than one line")
	}
	m := Mount{Kind: Volume}
	var tmpfs []string
	given := map[string]bool{}
	for _, field := range fields {
		key, value, set := strings.Cut(field, "=")
		key = strings.ToLower(key)
		option, err := m.set(key, value, set)
		if err != nil {
			return m, err
		}
		if option != "" {
			tmpfs = append(tmpfs, option)
		}
		kind, _, _ := strings.Cut(key, "-")
		given[kind] = true
	}
	for _, kind := range []Kind{Bind, Volume, Tmpfs} {
		if given[string(kind)] && m.Kind != kind {
			return m, fmt.Errorf("options that begin with %s- are for type=%s, and this is type=%s", kind, kind, m.Kind)
		}
	}
	switch {
	case m.Target == "":
		return m, fmt.Errorf("no target; add target=PATH, where the guest is to have it")
	case m.Kind == Bind && m.Source == "":
		return m, fmt.Errorf("no source; add source=PATH, what of the host the guest is to have")
	case m.Kind == Bind && m.Source[0] != '/' && m.Source[0] != '.':
		return m, fmt.Errorf("the source %q is not absolute; begin it with / or ./", m.Source)
	case m.Kind == Tmpfs && m.Source != "":
		return m, fmt.Errorf("a tmpfs has no source; leave it out, or say type=bind or type=volume")
	}
	if m.Kind == Tmpfs {
		if m.ReadOnly {
			tmpfs = append(tmpfs, "ro")
		}
		m.Options = strings.Join(append(strings.Split(tmpfsDefaults, ","), tmpfs...), ",")
	}
	return m, m.check()
}

// set understands one word of a --mount. option is what it means to a tmpfs.
func (m *Mount) set(key, value string, set bool) (option string, err error) {
	flag := func() (bool, error) {
		if !set {
			return true, nil
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return false, fmt.Errorf("%s=%s: say true or false", key, value)
		}
		return on, nil
	}
	switch key {
	case "readonly", "ro":
		m.ReadOnly, err = flag()
		return "", err
	case "volume-nocopy", "bind-nonrecursive":
		_, err = flag() // husk copies nothing into volumes; and what is mounted below a folder, it shows
		return "", err
	}
	if !set {
		return "", fmt.Errorf("%q is not of the form KEY=VALUE", key)
	}
	switch key {
	case "type":
		switch m.Kind = Kind(strings.ToLower(value)); m.Kind {
		case Bind, Volume, Tmpfs:
		default:
			return "", fmt.Errorf("type=%s: say bind, volume or tmpfs", value)
		}
	case "source", "src":
		m.Source = value
	case "target", "dst", "destination":
		m.Target = value
	case "consistency", "volume-label":
		// Of no meaning on Linux, and for volumes that are folders.
	case "bind-propagation":
		if value != "private" && value != "rprivate" {
			return "", fmt.Errorf("%s=%s: mounts do not travel between this host and a guest, which has a kernel of its own; leave it out", key, value)
		}
	case "volume-driver":
		if value != "local" {
			return "", fmt.Errorf("%s=%s: husk's volumes are folders of this host; leave it out, or mount the folder with type=bind", key, value)
		}
	case "volume-opt":
		return "", fmt.Errorf("%s: husk's volumes are folders of this host; mount what it is to be on the host, and show that with type=bind", key)
	case "tmpfs-size":
		size, err := ParseSize(value)
		if err != nil {
			return "", fmt.Errorf("%s=%w", key, err)
		}
		return fmt.Sprintf("size=%d", size), nil
	case "tmpfs-mode":
		mode, err := strconv.ParseUint(value, 8, 12)
		if err != nil {
			return "", fmt.Errorf("%s=%s: give permissions as an octal number, as 1777", key, value)
		}
		return fmt.Sprintf("mode=%o", mode), nil
	default:
		return "", fmt.Errorf("%q is not an option of a mount", key)
	}
	return "", nil
}
