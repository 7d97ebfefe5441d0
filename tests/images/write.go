package images

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// WriteArchive writes images as docker save does, each with the tag "NAME:latest".
// The file is replaced at once.
func WriteArchive(path string, images []Image) error {
	tagged := map[name.Tag]v1.Image{}
	for _, i := range images {
		tag, err := name.NewTag(i.Name + ":latest")
		if err != nil {
			return err
		}
		tagged[tag] = i.Image
	}
	fresh := path + ".new"
	err := tarball.MultiWriteToFile(fresh, tagged)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		_ = os.Remove(fresh)
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// WriteLayout writes images as a folder in OCI's image layout. Each is there by its
// name and by NAME-multi: an index that has it for Linux on x86-64, behind one of
// another platform and one that is no image.
func WriteLayout(dir string, images []Image) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, i := range images {
		multi, err := platforms(i.Image)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index,
			mutate.IndexAddendum{Add: i.Image, Descriptor: v1.Descriptor{Annotations: ref(i.Name)}},
			mutate.IndexAddendum{Add: multi, Descriptor: v1.Descriptor{Annotations: ref(i.Name + "-multi")}})
	}
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if _, err := layout.Write(fresh, index); err != nil {
		return errors.Join(err, os.RemoveAll(fresh))
	}
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(fresh, filepath.Clean(dir))
}

// ref is the annotation that names an image of a layout (image-spec, annotations.md).
func ref(name string) map[string]string {
	return map[string]string{"org.opencontainers.image.ref.name": name}
}

// platforms is an index as registries have it: with an image for a platform that is
// not ours, ours, and what docker buildx puts beside them: its attestations.
func platforms(ours v1.Image) (v1.ImageIndex, error) {
	foreign, err := build(v1.Config{Cmd: []string{"/not/for/this/machine"}})
	if err != nil {
		return nil, err
	}
	attestation, err := build(v1.Config{})
	if err != nil {
		return nil, err
	}
	on := func(os, arch string) v1.Descriptor {
		return v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch}}
	}
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: foreign, Descriptor: on("linux", "arm64")},
		mutate.IndexAddendum{Add: ours, Descriptor: on("linux", "amd64")},
		mutate.IndexAddendum{Add: attestation, Descriptor: on("unknown", "unknown")},
	), nil
}
