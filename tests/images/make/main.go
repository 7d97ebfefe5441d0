// Command make writes the images of tests.
//
//	go run ./tests/images/make build/images
//
// makes small.tar, a docker archive with those of package images that docker load takes,
// and oci, some in an OCI layout. A Debian's root as a tar archive, if one is given behind it, becomes
// debian.tar, an image of that name.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/huskvm/husk/tests/images"
)

func main() {
	if len(os.Args) != 2 && len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: make FOLDER [DEBIAN-ROOT.tar]")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "make:", err)
		os.Exit(1)
	}
}

func write(dir string, debian []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if len(debian) > 0 {
		i, err := images.Debian(debian[0])
		if err != nil {
			return err
		}
		return images.WriteArchive(filepath.Join(dir, "debian.tar"), []images.Image{i})
	}
	busybox, err := images.FindBusybox()
	if err != nil {
		return err
	}
	all, err := images.All(busybox)
	if err != nil {
		return err
	}
	var archive, layout []images.Image
	for _, i := range all {
		if i.Name != images.Mixed {
			archive = append(archive, i)
		}
		if i.Name == images.Mixed || i.Name == "busy" {
			layout = append(layout, i)
		}
	}
	if err := images.WriteArchive(filepath.Join(dir, "small.tar"), archive); err != nil {
		return err
	}
	return images.WriteLayout(filepath.Join(dir, "oci"), layout)
}
