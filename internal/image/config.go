package image

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The most that husk takes of what a registry or an archive says. Registries take no
// manifest above 4 MiB (OCI distribution-spec 1.1, "Pushing Manifests").
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
)

// maxNesting is how deep lists of manifests may be in each other.
const maxNesting = 4

// DefaultPlatform is what husk's machines run.
func DefaultPlatform() v1.Platform { return v1.Platform{OS: "linux", Architecture: "amd64"} }

// ParsePlatform understands "linux/arm64" and "linux/arm/v7", or an architecture alone.
func ParsePlatform(s string) (v1.Platform, error) {
	words := strings.Split(strings.ToLower(s), "/")
	if len(words) == 1 {
		words = []string{"linux", words[0]}
	}
	if len(words) > 3 || slices.Contains(words, "") {
		return v1.Platform{}, fmt.Errorf("platform %q: must be OS/ARCH or OS/ARCH/VARIANT, as linux/amd64", s)
	}
	p := v1.Platform{OS: words[0], Architecture: words[1]}
	if len(words) == 3 {
		p.Variant = words[2]
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	}
	return p, nil
}

// platformOf is the platform that a config says.
func platformOf(c *v1.ConfigFile) v1.Platform {
	return v1.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}
}

// fits tells whether what is for have runs on want. A variant that nobody asked for is no
// matter: amd64/v2 is had as amd64.
func fits(have, want v1.Platform) bool {
	return have.OS == want.OS && have.Architecture == want.Architecture &&
		(want.Variant == "" || have.Variant == want.Variant || baseline(have) == baseline(want))
}

// baseline is a platform's variant, where "" is the one that architectures begin with.
func baseline(p v1.Platform) string {
	switch {
	case p.Variant != "":
		return p.Variant
	case p.Architecture == "amd64":
		return "v1"
	case p.Architecture == "arm64":
		return "v8"
	case p.Architecture == "arm":
		return "v7"
	}
	return ""
}

// parseConfig reads an image's config.
func parseConfig(text []byte) (*v1.ConfigFile, error) {
	c := &v1.ConfigFile{}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("config: %w: %w", ErrFormat, err)
	}
	if c.RootFS.Type != "" && c.RootFS.Type != "layers" {
		return nil, fmt.Errorf("config: %w: its root is of type %q and not layers", ErrFormat, c.RootFS.Type)
	}
	for _, h := range c.RootFS.DiffIDs {
		if h.Hex == "" { // JSON's null passes by v1.Hash
			return nil, fmt.Errorf("config: %w: an empty diff_id", ErrFormat)
		}
	}
	return c, nil
}

// A document is a manifest or a list of manifests.
type document struct {
	manifest *v1.Manifest
	list     *v1.IndexManifest
}

// parseDocument reads what a registry or a layout calls a manifest. mediaType is what it
// was said to be; "" if nothing was said.
func parseDocument(text []byte, mediaType types.MediaType) (document, error) {
	var head struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return document{}, fmt.Errorf("manifest: %w: %w", ErrFormat, err)
	}
	if head.MediaType != "" {
		mediaType = head.MediaType // what was signed for goes before what a header says
	}
	switch {
	case mediaType.IsSchema1() || head.SchemaVersion == 1 || head.FSLayers != nil:
		return document{}, fmt.Errorf("manifest: %w: schema 1, which Docker has left in 2017; push the image again with a newer Docker", ErrFormat)
	case head.Config != nil && head.Manifests != nil: // CVE-2021-41190
		return document{}, fmt.Errorf("manifest: %w: it is an image and a list of images at once", ErrFormat)
	case mediaType.IsIndex() || !mediaType.IsImage() && head.Manifests != nil:
		return parseList(text)
	case mediaType.IsImage() || head.Config != nil:
		return parseManifest(text)
	}
	return document{}, fmt.Errorf("manifest: %w: media type %q", ErrFormat, mediaType)
}

func parseList(text []byte) (document, error) {
	list := &v1.IndexManifest{}
	if err := json.Unmarshal(text, list); err != nil {
		return document{}, fmt.Errorf("list of manifests: %w: %w", ErrFormat, err)
	}
	for _, d := range list.Manifests {
		if err := checkDescriptor(d, "manifest", maxManifest); err != nil {
			return document{}, err
		}
	}
	return document{list: list}, nil
}

func parseManifest(text []byte) (document, error) {
	m := &v1.Manifest{}
	if err := json.Unmarshal(text, m); err != nil {
		return document{}, fmt.Errorf("manifest: %w: %w", ErrFormat, err)
	}
	if !m.Config.MediaType.IsConfig() || m.ArtifactType != "" {
		kind := m.ArtifactType
		if kind == "" {
			kind = string(m.Config.MediaType)
		}
		return document{}, fmt.Errorf("manifest: %w: an artifact of type %q, not an image that can be run", ErrFormat, kind)
	}
	if err := checkDescriptor(m.Config, "config", maxConfig); err != nil {
		return document{}, err
	}
	for _, l := range m.Layers {
		if !isLayer(l.MediaType) {
			return document{}, fmt.Errorf("manifest: %w: a layer of media type %q", ErrFormat, l.MediaType)
		}
		if err := checkDescriptor(l, "layer", 1<<62); err != nil {
			return document{}, err
		}
	}
	return document{manifest: m}, nil
}

// isLayer tells whether a media type is that of a tar, compressed in a way that husk
// knows or not at all.
func isLayer(t types.MediaType) bool {
	return t.IsLayer() || t == dockerZstdLayer || t == restrictedZstdLayer
}

// Media types that the library does not list.
const (
	dockerZstdLayer     types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"
	restrictedZstdLayer types.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
)

// checkDescriptor refuses one without a digest, and sizes that cannot be.
func checkDescriptor(d v1.Descriptor, what string, most int64) error {
	switch {
	case d.Digest.Hex == "":
		return fmt.Errorf("manifest: %w: a %s without a digest", ErrFormat, what)
	case d.Size < 0:
		return fmt.Errorf("manifest: %w: a %s of %d bytes", ErrFormat, what, d.Size)
	case d.Size > most:
		return fmt.Errorf("manifest: %w: a %s of %d bytes, more than the %d that husk takes", ErrFormat, what, d.Size, most)
	}
	return nil
}

// choose is the manifest of a list to take for a platform. Those that say no platform are
// taken if there is nothing else, and their config is looked at.
func choose(list *v1.IndexManifest, want v1.Platform) (v1.Descriptor, error) {
	var best *v1.Descriptor
	var silent []v1.Descriptor
	var names []string
	for i, d := range list.Manifests {
		switch {
		case d.Platform == nil && (d.MediaType.IsImage() || d.MediaType.IsIndex()):
			silent = append(silent, d)
		case d.Platform == nil || d.Platform.OS == "unknown": // attestations
		case !fits(*d.Platform, want):
			names = append(names, d.Platform.String())
		case best == nil || closer(*d.Platform, *best.Platform, want):
			best = &list.Manifests[i]
			names = append(names, d.Platform.String())
		}
	}
	switch {
	case best != nil:
		return *best, nil
	case len(silent) == 1:
		return silent[0], nil
	case len(silent) > 1:
		return v1.Descriptor{}, fmt.Errorf("%w: %d images, and it is not said which is for %s; name one by its digest", ErrPlatform, len(silent), want)
	case len(names) == 0:
		return v1.Descriptor{}, fmt.Errorf("%w: a list without an image", ErrPlatform)
	}
	slices.Sort(names)
	return v1.Descriptor{}, noPlatform(want, slices.Compact(names))
}

// closer tells whether a is better than b for want: the variant asked for, or else the
// least demanding one.
func closer(a, b, want v1.Platform) bool {
	if exact := baseline(want); (baseline(a) == exact) != (baseline(b) == exact) {
		return baseline(a) == exact
	}
	return baseline(a) < baseline(b)
}

// noPlatform is the error for an image that is for others.
func noPlatform(want v1.Platform, have []string) error {
	return fmt.Errorf("%w: none for %s, only for %s; --platform names another", ErrPlatform, want, strings.Join(have, ", "))
}
