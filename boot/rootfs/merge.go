package rootfs

import (
	"errors"
	"fmt"
	"maps"
	"strings"
)

// hide takes the entry of a whiteout: name is its last part.
func hide(parent *inode, name string) error {
	if name == opaque {
		parent.dir.opaque = true
		return nil
	}
	hidden := strings.TrimPrefix(name, whiteout)
	switch hidden {
	case "", ".", "..":
		return refuse(errors.New("a whiteout of no file in its directory"))
	}
	if err := checkName(hidden); err != nil {
		return refuse(fmt.Errorf("whiteout: %w", err))
	}
	if parent.dir.hides == nil {
		parent.dir.hides = map[string]bool{}
	}
	parent.dir.hides[strings.Clone(hidden)] = true
	return nil
}

// merge puts a directory of a layer above the one of the same name below it. Whiteouts
// take away what is below, never what is in their own layer, wherever in the archive
// they are (OCI image-spec, layer.md, "Whiteouts").
func merge(below, above *inode) {
	up, low := above.dir, below.dir
	if !up.implied {
		below.setAttributes(above)
	}
	if up.opaque {
		clear(low.children)
	}
	for name := range up.hides {
		delete(low.children, name)
	}
	for name, node := range up.children {
		old := low.children[name]
		switch {
		case node.kind() != typeDir:
			low.put(name, node)
		case old != nil && old.kind() == typeDir:
			merge(old, node)
		default:
			settle(node)
			low.put(name, node)
		}
	}
}

// settle ends the life of a directory as one of a layer: there is nothing below it.
func settle(node *inode) {
	node.dir.hides, node.dir.opaque, node.dir.implied = nil, false, false
	for child := range maps.Values(node.dir.children) {
		if child.kind() == typeDir {
			settle(child)
		}
	}
}
