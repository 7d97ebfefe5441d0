package rootfs

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// What Linux takes for names (include/uapi/linux/limits.h), and for links in a path
// (include/linux/namei.h, MAXSYMLINKS).
const (
	maxName  = 255
	maxPath  = 4095 // PATH_MAX without its NUL
	maxLinks = 40
)

// Why a path leads nowhere.
var (
	errNotThere = errors.New("there is no such file")
	errNotDir   = errors.New("not a directory")
	errLoop     = fmt.Errorf("more than %d symbolic links in the path, or targets of more than %d bytes together", maxLinks, maxPath)
	errTooLong  = fmt.Errorf("a path of more than %d bytes", maxPath)
)

// split takes a name of an archive apart. It is relative to the root whether it begins
// with a slash, "./" or "../", and "a/.." is nothing even if a is a link: containerd and
// Docker clean names in the same way before they look at them.
func split(name string) ([]string, error) {
	if strings.Contains(name, "\x00") {
		return nil, errors.New("a NUL in the name")
	}
	if len(name) > maxPath {
		return nil, errTooLong
	}
	name = path.Clean("/" + name)[1:]
	if name == "" {
		return nil, nil
	}
	return strings.Split(name, "/"), nil
}

// checkName refuses what Linux takes for no file's name.
func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("a name of %d bytes, at most %d are possible: %.40q…", len(name), maxName, name)
	}
	return nil
}

// A place is a directory on the way of a path: in the layer that is being read, and
// in what the layers below it make. One of them may be nil.
type place struct {
	layer, below *inode
	length       int // of the way to it, without links, in bytes
}

// child says what a name in a directory is.
func (p place) child(name string) (layer, below *inode) {
	if p.layer != nil {
		layer = p.layer.dir.children[name]
	}
	if p.below != nil {
		below = p.below.dir.children[name]
	}
	return layer, below
}

// A walk goes from the root of a layer to a directory. It follows symbolic links, which
// cannot lead out of the root, as in a chroot.
type walk struct {
	way    []place  // from the root
	todo   []string // names still to go, the last first
	links  int
	length int // of the links' targets
}

func newWalk(layer, below *inode, names []string) *walk {
	w := &walk{way: []place{{layer: layer, below: below}}}
	w.push(names)
	return w
}

func (w *walk) push(names []string) {
	for i := len(names) - 1; i >= 0; i-- {
		w.todo = append(w.todo, names[i])
	}
}

// to goes all the way. Directories that are not in the layer are made there with makeDir,
// unless it is nil.
func (w *walk) to(makeDir func() (*inode, error)) (place, error) {
	for len(w.todo) > 0 {
		name := w.todo[len(w.todo)-1]
		w.todo = w.todo[:len(w.todo)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			w.way = w.way[:max(1, len(w.way)-1)]
			continue
		}
		if err := w.step(name, makeDir); err != nil {
			return place{}, err
		}
	}
	return w.way[len(w.way)-1], nil
}

func (w *walk) step(name string, makeDir func() (*inode, error)) error {
	here := w.way[len(w.way)-1]
	layer, below := here.child(name)
	if layer == nil && makeDir != nil {
		if err := checkName(name); err != nil {
			return err
		}
		var err error
		if layer, err = makeDir(); err != nil {
			return err
		}
		here.layer.dir.put(strings.Clone(name), layer)
	}
	node := layer
	if node == nil {
		node = below
	}
	switch {
	case node == nil:
		return fmt.Errorf("%s: %w", name, errNotThere)
	case node.kind() == typeLink:
		return w.follow(string(node.tail))
	case node.kind() != typeDir:
		return fmt.Errorf("%s: %w", name, errNotDir)
	}
	next := place{layer: layer, length: here.length + len(name) + 1}
	if below != nil && below.kind() == typeDir {
		next.below = below
	}
	if next.length > maxPath {
		return errTooLong
	}
	w.way = append(w.way, next)
	return nil
}

func (w *walk) follow(target string) error {
	w.links++
	w.length += len(target)
	if w.links > maxLinks || w.length > maxPath {
		return errLoop
	}
	if strings.HasPrefix(target, "/") {
		w.way = w.way[:1]
	}
	w.push(strings.Split(target, "/"))
	return nil
}

// find gives the inode that a path names, which may be a link itself.
func find(layer, below *inode, names []string) (*inode, error) {
	if len(names) == 0 {
		return layer, nil
	}
	last := len(names) - 1
	dir, err := newWalk(layer, below, names[:last]).to(nil)
	if err != nil {
		return nil, err
	}
	up, low := dir.child(names[last])
	switch {
	case up != nil:
		return up, nil
	case low != nil:
		return low, nil
	}
	return nil, errNotThere
}
