// Package images makes container images for tests, without root and without a
// network: images with odd users, layers and configurations, all of them on busybox.
// The same version of it makes the same images, bit by bit.
package images

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Mixed names the image that is as odd, with layers that are compressed in different
// ways, a hard link across layers (/odd/linked-3), and a folder that a layer makes anew
// (/odd/file-to-dir, with the file other). Not every docker load takes it.
const Mixed = "odd-mixed"

// An Image is one with its name, "busy".
type Image struct {
	Name  string
	Image v1.Image
}

// A Busybox is the program that all images have, and its applets' names.
type Busybox struct {
	program string // its bytes
	applets []string
}

// FindBusybox looks for a static busybox on PATH.
func FindBusybox() (Busybox, error) {
	const remedy = "install busybox-static, or have tests/install images do it"
	path, err := exec.LookPath("busybox")
	if err != nil {
		return Busybox{}, fmt.Errorf("%w; %s", err, remedy)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Busybox{}, err
	}
	program, err := elf.Open(path)
	if err != nil {
		return Busybox{}, fmt.Errorf("%s: %w; %s", path, err, remedy)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return Busybox{}, fmt.Errorf("%s needs libraries, which the images do not have; %s", path, remedy)
		}
	}
	list, err := exec.Command(path, "--list").Output()
	if err != nil {
		return Busybox{}, fmt.Errorf("%s --list: %w", path, err)
	}
	return Busybox{program: string(b), applets: strings.Fields(string(list))}, nil
}

// All makes all images.
func All(b Busybox) ([]Image, error) {
	system, err := b.system()
	if err != nil {
		return nil, fmt.Errorf("busy: %w", err)
	}
	var errs []error
	var all []Image
	add := func(name string, c v1.Config, layers ...v1.Layer) {
		image, err := build(c, layers...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		all = append(all, Image{name, image})
	}
	for _, c := range configs() {
		add(c.name, c.config, system)
	}
	odd, err := oddLayers()
	errs = append(errs, err)
	add("odd", v1.Config{Cmd: []string{"sh"}}, append([]v1.Layer{system}, odd...)...)
	mixed, err := mixedLayers()
	errs = append(errs, err)
	add(Mixed, v1.Config{Cmd: []string{"sh"}}, append([]v1.Layer{system}, mixed...)...)
	data, err := dataLayer()
	errs = append(errs, err)
	add("volumes", v1.Config{Cmd: []string{"sh"}, Volumes: map[string]struct{}{"/data": {}, "/new/volume": {}}}, system, data)
	linked, err := linkedLayer()
	errs = append(errs, err)
	add("linked", v1.Config{Cmd: []string{"sh"}}, system, linked)
	bare, err := b.distroless()
	errs = append(errs, err)
	add("distroless", v1.Config{
		Entrypoint: []string{"/app/busybox"}, Cmd: []string{"echo", "hello"}, WorkingDir: "/app", User: "65532:65532",
	}, bare)
	return all, errors.Join(errs...)
}

// build puts layers and a configuration together, as an OCI image for Linux on x86-64.
func build(c v1.Config, layers ...v1.Layer) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: "amd64", OS: "linux", Created: v1.Time{Time: Made}, Config: c, RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	adds := make([]mutate.Addendum, len(layers))
	for i, l := range layers {
		adds[i] = mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: Made}, CreatedBy: "husk's tests"}}
	}
	return mutate.Append(image, adds...)
}

// Debian makes an image named debian of a tar archive of its root, as mmdebstrap
// writes it.
func Debian(root string) (Image, error) {
	l, err := tarball.LayerFromFile(root, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return Image{}, err
	}
	image, err := build(v1.Config{Cmd: []string{"bash"}}, l)
	return Image{"debian", image}, err
}
