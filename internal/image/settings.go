package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"go.yaml.in/yaml/v3"
)

// Settings are what a user's configuration file says of registries.
type Settings struct {
	// Registries are by their names: "docker.io", "localhost:5000".
	Registries map[string]RegistrySettings `yaml:"registries"`
}

// RegistrySettings are those of one registry.
type RegistrySettings struct {
	// Mirrors are asked before the registry itself, in this order: "https://HOST[:PORT][/PATH]".
	Mirrors []string `yaml:"mirrors"`
	// Insecure allows plain HTTP, and certificates that nobody vouches for.
	Insecure bool `yaml:"insecure"`
}

// SettingsFile is where a user's settings are: $XDG_CONFIG_HOME/husk/config.yaml, or else
// ~/.config/husk/config.yaml; "" if there is neither.
func SettingsFile(getenv func(string) string) string {
	if dir := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "husk", "config.yaml")
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".config", "husk", "config.yaml")
	}
	return ""
}

// LoadSettings reads a user's settings. A file that is not there says nothing.
func LoadSettings(file string) (Settings, error) {
	if file == "" {
		return Settings{}, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Settings{}, nil
	}
	if err != nil {
		return Settings{}, err
	}
	set, err := parseSettings(text)
	if err != nil {
		return Settings{}, fmt.Errorf("%s: %w", file, err)
	}
	return set, nil
}

func parseSettings(text []byte) (Settings, error) {
	var set Settings
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&set); err != nil && !errors.Is(err, io.EOF) {
		return Settings{}, err
	}
	for registry, r := range set.Registries {
		if !host.MatchString(registry) {
			return Settings{}, fmt.Errorf("registry %q: must be HOST or HOST:PORT, as docker.io", registry)
		}
		for _, m := range r.Mirrors {
			if _, err := parseMirror(m); err != nil {
				return Settings{}, err
			}
		}
	}
	return set, nil
}

// A place is where a repository can be had: a registry itself, or a mirror of it.
type place struct {
	registry   string // "index.docker.io", "localhost:5000"
	repository string
	plain      bool   // plain HTTP is allowed
	unverified bool   // and certificates that nobody vouches for
	mirror     string // what it was called, "" for the registry itself
}

// places are where an image can be had, in the order in which to ask.
func places(ref Reference, o PullOptions) ([]place, error) {
	set := o.Settings.Registries[ref.Registry]
	var list []place
	for _, m := range append(append([]string{}, o.Mirrors...), set.Mirrors...) {
		p, err := parseMirror(m)
		if err != nil {
			return nil, err
		}
		p.repository = path.Join(p.repository, ref.Repository)
		p.unverified = o.Settings.Registries[p.registry].Insecure || o.Insecure
		p.plain = p.plain || p.unverified
		list = append(list, p)
	}
	insecure := set.Insecure || o.Insecure
	return append(list, place{
		registry: ref.Registry, repository: ref.Repository,
		plain: insecure || isLoopback(ref.Registry), unverified: insecure,
	}), nil
}

// parseMirror understands "[http://|https://]HOST[:PORT][/PATH]". The PATH goes before the
// repository's.
func parseMirror(s string) (place, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "", s
	}
	registry, prefix, _ := strings.Cut(strings.TrimRight(rest, "/"), "/")
	p := place{registry: registry, repository: prefix, mirror: s}
	if !host.MatchString(registry) || scheme != "" && scheme != "http" && scheme != "https" {
		return place{}, fmt.Errorf("mirror %q: must be [https://]HOST[:PORT][/PATH]", s)
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if prefix != "" && !component.MatchString(part) {
			return place{}, fmt.Errorf("mirror %q: its path cannot be the beginning of a repository's name", s)
		}
	}
	p.plain = scheme == "http" || scheme == "" && isLoopback(registry)
	return p, nil
}

// isLoopback tells whether a registry is on this host, whose connections nobody else
// listens to.
func isLoopback(registry string) bool {
	h := registry
	if name, _, err := net.SplitHostPort(registry); err == nil {
		h = name
	}
	h = strings.Trim(h, "[]")
	if ip, err := netip.ParseAddr(h); err == nil {
		return ip.IsLoopback()
	}
	return h == "localhost" || strings.HasSuffix(h, ".localhost")
}

// resource is the repository, as credentials and tokens name it.
func (p place) resource() (name.Repository, error) {
	var opts []name.Option
	if p.plain {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(p.registry, opts...)
	if err != nil {
		return name.Repository{}, err
	}
	return reg.Repo(p.repository), nil
}

func (p place) String() string {
	if p.mirror != "" {
		return "mirror " + p.mirror
	}
	return "registry " + p.registry
}
