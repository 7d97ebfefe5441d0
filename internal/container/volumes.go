package container

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/huskvm/husk/internal/machine"
)

// setMounts makes volumes and file systems in memory of all that asks for them.
//
// A volume without a name is a place that the machine can write to, and nobody else sees. That
// is what its root is anyway; where that is read-only, it is memory.
func (r *Request) setMounts(p *Plan, image v1.Config, host Host) error {
	mounts, err := r.mounts()
	if err != nil {
		return err
	}
	at := map[string]bool{}
	for _, m := range mounts {
		if at[m.Target] {
			return fmt.Errorf("duplicate mount point: the guest's path %s is given to two volumes; leave one out", m.Target)
		}
		at[m.Target] = true
	}
	for _, target := range slices.Sorted(maps.Keys(image.Volumes)) {
		// What an image says and is no path is passed over: it was not the user who wrote it.
		if m, err := parseVolume(target); err == nil && m.Source == "" && !at[m.Target] {
			at[m.Target] = true
			mounts = append(mounts, m)
		}
	}
	// What is below something else is mounted after it.
	slices.SortStableFunc(mounts, func(a, b Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	for _, m := range mounts {
		if err := p.mount(m, host); err != nil {
			return err
		}
	}
	return nil
}

// mounts are those of the flags.
func (r *Request) mounts() ([]Mount, error) {
	var list []Mount
	for _, form := range []struct {
		texts []string
		parse func(string) (Mount, error)
	}{{r.Volumes, ParseVolume}, {r.Mounts, ParseMount}, {r.Tmpfs, ParseTmpfs}} {
		for _, text := range form.texts {
			m, err := form.parse(text)
			if err != nil {
				return nil, err
			}
			list = append(list, m)
		}
	}
	return list, nil
}

// mount has a plan's machine mount something.
func (p *Plan) mount(m Mount, host Host) error {
	switch {
	case m.Kind == Tmpfs:
		p.Tmpfs = append(p.Tmpfs, machine.Tmpfs{Guest: m.Target, Options: m.Options})
		return nil
	case m.Source == "":
		if p.ReadOnly && !m.ReadOnly {
			p.Tmpfs = append(p.Tmpfs, machine.Tmpfs{Guest: m.Target, Options: "nodev"})
		}
		return nil
	}
	source := m.Source
	if m.Kind == Volume {
		source = filepath.Join(host.Volumes, m.Source)
	}
	if !filepath.IsAbs(source) {
		source = filepath.Join(host.Dir, source)
	}
	source = path.Clean(source)
	_, err := os.Stat(source)
	switch {
	case err == nil:
	case os.IsNotExist(err) && (m.Make || m.Kind == Volume):
		p.Folders = append(p.Folders, source)
	case os.IsNotExist(err):
		return fmt.Errorf("--mount: bind source path does not exist: %s; make it, or use -v, which makes a folder", source)
	default:
		return fmt.Errorf("volume %s: %w", m.Target, err)
	}
	p.Volumes = append(p.Volumes, machine.Volume{Host: source, Guest: m.Target, ReadOnly: m.ReadOnly})
	return nil
}

// MakeFolders makes the folders that a plan's volumes want and that are not there.
func (p *Plan) MakeFolders() error {
	for _, folder := range p.Folders {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("make the folder of a volume: %w", err)
		}
	}
	return nil
}
