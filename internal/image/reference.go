package image

import (
	"fmt"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// hub is the registry of names that name none.
const hub = "docker.io"

// A Reference is the name of an image in a registry: what "debian" stands for is
// docker.io, library/debian, latest.
type Reference struct {
	Registry   string // "docker.io", "localhost:5000"
	Repository string // "library/debian"
	Tag        string // "" where there is a digest
	Digest     string // "sha256:…", or ""
}

// The grammar of names is Docker's (distribution/reference).
var (
	component = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	host      = regexp.MustCompile(`^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?$`)
	tagForm   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
	wholeID   = regexp.MustCompile(`^[a-f0-9]{64}$`)
)

// ParseReference understands a name as Docker's users write it. The error is ErrName.
func ParseReference(s string) (Reference, error) {
	bad := func(why string, args ...any) (Reference, error) {
		return Reference{}, fmt.Errorf("%q: %w: %s", s, ErrName, fmt.Sprintf(why, args...))
	}
	var ref Reference
	rest, digest, withDigest := strings.Cut(s, "@")
	if withDigest {
		if _, err := v1.NewHash(digest); err != nil {
			return bad("behind @ must be a digest: sha256: and 64 hexadecimal digits")
		}
		ref.Digest = digest
	}
	// A colon behind the last slash is a tag's, one before is a port's.
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		if !tagForm.MatchString(rest[colon+1:]) {
			return bad("the tag %q must be letters, digits, _, . and -, at most 128", rest[colon+1:])
		}
		rest, ref.Tag = rest[:colon], rest[colon+1:]
	}
	switch {
	case ref.Digest != "":
		ref.Tag = "" // the digest alone says which
	case ref.Tag == "":
		ref.Tag = "latest"
	}
	if wholeID.MatchString(rest) {
		return bad("it is an ID")
	}
	ref.Registry, ref.Repository = hub, rest
	if first, path, ok := strings.Cut(rest, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost" || first != strings.ToLower(first)) {
		ref.Registry, ref.Repository = first, path
	}
	if ref.Registry == "index."+hub {
		ref.Registry = hub
	}
	if !host.MatchString(ref.Registry) {
		return bad("the registry %q must be HOST or HOST:PORT", ref.Registry)
	}
	if ref.Registry == hub && !strings.Contains(ref.Repository, "/") {
		ref.Repository = "library/" + ref.Repository
	}
	if len(ref.Repository) > 255 {
		return bad("it is longer than 255 characters")
	}
	for part := range strings.SplitSeq(ref.Repository, "/") {
		switch {
		case component.MatchString(part):
		case component.MatchString(strings.ToLower(part)):
			return bad("a repository's name must be in lower case")
		default:
			return bad("a repository's name must be lower case letters and digits, with ., _ or - between, and / between parts")
		}
	}
	return ref, nil
}

// String is the whole name: "docker.io/library/debian:latest".
func (r Reference) String() string {
	return r.Registry + "/" + r.Repository + r.suffix()
}

// Familiar is the name as people write it: "debian:latest".
func (r Reference) Familiar() string { return r.familiarRepository() + r.suffix() }

// suffix is the tag or the digest.
func (r Reference) suffix() string {
	if r.Digest != "" {
		return "@" + r.Digest
	}
	return ":" + r.Tag
}

// familiarRepository is the name as people write it, without tag and digest.
func (r Reference) familiarRepository() string {
	if r.Registry != hub {
		return r.Registry + "/" + r.Repository
	}
	short, ok := strings.CutPrefix(r.Repository, "library/")
	// What begins like a registry must keep its own.
	if !ok || strings.Contains(short, "/") {
		short = r.Repository
	}
	if first, _, ok := strings.Cut(short, "/"); ok && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return r.Registry + "/" + short
	}
	return short
}

// identifier is what a registry is asked for.
func (r Reference) identifier() string {
	if r.Digest != "" {
		return r.Digest
	}
	return r.Tag
}
