package diskboot

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/boot/diskboot/imagefs"
	"github.com/huskvm/husk/boot/modules"
)

// ErrNoModules says that an image has no modules for its own kernel. The errors that
// carry it name both, and what to do.
var ErrNoModules = errors.New("no kernel modules in the disk image")

// maxTree is what may be read through a folder of modules, in bytes, the ways to
// the files among them. It is more than a distribution's has, and bounds what a
// tree made for that purpose costs: one without an end, or of large folders.
const maxTree = 2 << 30

// moduleFolders are where a kernel's modules are, less its version. On the volume of
// /usr, too, the first is it.
var moduleFolders = []string{"/lib/modules", "/usr/lib/modules"}

// Version is the kernel's release, as uname -r prints it; modules.ErrVersion if the
// kernel's image does not tell.
func (f *Found) Version() (string, error) {
	v, err := modules.Version(f.Kernel)
	if err != nil {
		return "", fmt.Errorf("%s: %w", f.Kernel.Name, err)
	}
	return v, nil
}

// Modules is the folder of the modules of the kernel that was found, for
// modules.OpenFS: /lib/modules/VERSION on the volume that the command line names as
// the root, else on any other. The image must stay open. Errors are ErrNoModules.
func (f *Found) Modules() (*imagefs.FS, error) {
	s := f.search
	version, err := f.Version()
	if err != nil {
		return nil, fmt.Errorf("%w: %w; %s", ErrNoModules, err, remedyModules)
	}
	// What is read here is counted anew, and by itself.
	image := &meter{image: s.disk.ReaderAt}
	image.left.Store(maxTree)
	disk := boot.Source{Name: s.disk.Name, Size: s.disk.Size, ReaderAt: image}
	var looked, odd []string
	for _, v := range s.forModules(f.CommandLine) {
		v = openVolume(disk, v.table, v.part)
		if v.files == nil {
			continue
		}
		looked = append(looked, v.String())
		for _, folder := range moduleFolders {
			folder = path.Join(folder, version)
			name := printable(fmt.Sprintf("%s: %s: %s", s.disk.Name, v, folder))
			found := imagefs.New(v.files, folder, name)
			// What a removed kernel has left behind is no tree.
			ok, err := modules.IsTree(found)
			if ok {
				return found, nil
			}
			if err != nil {
				odd = append(odd, fmt.Sprintf("%s: %v", v, err))
			}
		}
	}
	text := fmt.Sprintf("kernel %s; looked for %s on %s", version, strings.Join(moduleFolders, "/VERSION and ")+"/VERSION",
		strings.Join(looked[:min(len(looked), 32)], ", "))
	if other := s.unreadable(); other != "" {
		text += "; not read: " + other
	}
	for _, o := range odd[:min(len(odd), 4)] {
		text += "; " + o
	}
	return nil, fmt.Errorf("%s: %w: %s; %s", s.disk.Name, ErrNoModules, printable(text), remedyModules)
}

// remedyModules is what always helps.
const remedyModules = "give the kernel with -k KERNEL, and the folder of its modules with --modules"

// forModules are the volumes, in the order in which modules are looked for.
func (s *search) forModules(commandLine string) []*volume {
	all := slices.Clone(s.volumes)
	root := rootOf(commandLine)
	slices.SortStableFunc(all, func(a, b *volume) int {
		switch {
		case a.is(root) == b.is(root):
			return 0
		case a.is(root):
			return -1
		}
		return 1
	})
	return all
}

// rootOf is what a command line says of the root file system, "" if nothing. Of
// several words the kernel takes the last.
func rootOf(commandLine string) (root string) {
	kernel, _ := split(commandLine)
	for _, w := range kernel {
		// The value alone may be in quotes, too, as in root="UUID=…".
		if value, ok := strings.CutPrefix(strings.ReplaceAll(w, `"`, ""), "root="); ok {
			root = value
		}
	}
	return root
}

// is tells whether a volume is what root= says.
func (v *volume) is(root string) bool {
	same := func(prefix, folder, value string) bool {
		got, ok := strings.CutPrefix(root, prefix)
		if !ok {
			got, ok = strings.CutPrefix(root, "/dev/disk/"+folder+"/")
		}
		return ok && value != "" && strings.EqualFold(got, value)
	}
	if same("UUID=", "by-uuid", v.uuid) || same("LABEL=", "by-label", v.label) {
		return true
	}
	if v.part == nil {
		return root == "/dev/vda"
	}
	return same("PARTUUID=", "by-partuuid", v.part.UUID) || same("PARTLABEL=", "by-partlabel", v.part.Name) ||
		root == "/dev/vda"+strconv.Itoa(v.part.Number)
}
