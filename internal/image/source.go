package image

import (
	"fmt"
	"os"
	"strings"
)

// A Transport is a way to have an image.
type Transport string

// The transports, as skopeo has them in front of a name.
const (
	FromRegistry      Transport = "docker"         // docker://NAME, or NAME alone
	FromDaemon        Transport = "docker-daemon"  // an image of Docker's daemon
	FromDockerArchive Transport = "docker-archive" // a file that docker save wrote
	FromLayout        Transport = "oci"            // a folder that is an OCI layout
	FromLayoutArchive Transport = "oci-archive"    // the same in a tar
)

// A Source is where an image can be had.
type Source struct {
	Transport Transport
	Reference Reference // of a registry or a daemon
	Path      string    // of an archive or a layout
	Tag       string    // which image of those there; "" for the only one
}

// ParseSource understands a name with or without a transport:
//
//	NAME, docker://NAME          in a registry
//	docker-daemon:NAME           of Docker's daemon
//	docker-archive:FILE[:TAG]    TAG is a name, as debian:12, or @ and a number from 0
//	oci:DIR[:TAG]                TAG is the annotation org.opencontainers.image.ref.name
//	oci-archive:FILE[:TAG]
func ParseSource(s string) (src Source, err error) {
	transport, rest, _ := strings.Cut(s, ":")
	src.Transport = Transport(transport)
	switch src.Transport {
	case FromRegistry:
		name, ok := strings.CutPrefix(rest, "//")
		if !ok {
			break
		}
		src.Reference, err = ParseReference(name)
		return src, err
	case FromDaemon:
		src.Reference, err = ParseReference(rest)
		return src, err
	case FromDockerArchive, FromLayout, FromLayoutArchive:
		if rest == "" {
			return src, fmt.Errorf("%q: %w: behind %s: must be a path", s, ErrName, transport)
		}
		src.Path, src.Tag = splitPath(rest)
		return src, nil
	}
	src.Transport = FromRegistry
	src.Reference, err = ParseReference(s)
	return src, err
}

// splitPath takes a path and a tag apart, at the first colon before which there is a file
// or folder of that name.
func splitPath(s string) (path, tag string) {
	for i := range len(s) + 1 {
		if i < len(s) && s[i] != ':' {
			continue
		}
		if _, err := os.Stat(s[:i]); err == nil {
			return s[:i], s[min(i+1, len(s)):]
		}
	}
	path, tag, _ = strings.Cut(s, ":")
	return path, tag
}

// String is the source as ParseSource understands it.
func (s Source) String() string {
	switch s.Transport {
	case FromRegistry:
		return s.Reference.Familiar()
	case FromDaemon:
		return string(s.Transport) + ":" + s.Reference.Familiar()
	}
	if s.Tag != "" {
		return string(s.Transport) + ":" + s.Path + ":" + s.Tag
	}
	return string(s.Transport) + ":" + s.Path
}
