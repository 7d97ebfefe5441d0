// Package rootfs makes the disks of a container: the layers of its image, flattened
// into one read-only file system, and an empty one to write to.
//
// The read-only one is EROFS (kernel Documentation/filesystems/erofs.rst,
// fs/erofs/erofs_fs.h), written by this package: docs/rootfs.md says why. It is written
// in one pass over the layers, without root and without unpacking anything, and the
// same layers give the same bytes. Contents of files go straight to the disk; what is
// kept in memory until the end is some 200 bytes a file, and up to 512 of its content.
//
// What the layers' authors may do is bounded by the layers' size: a build writes what
// they have (holes stay holes) and some KiB for each entry, and what it keeps in memory is
// what is in their headers, at most 8 KiB for each entry, and 30 MiB besides. To that end it
// refuses layers with many more directories than entries (see impliedDirs). How large a
// layer may become when it is decompressed is for who opens it to say.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// FileSystem is what the read-only disk has on it, by the name that mount(2) and the
// kernel's module have.
const FileSystem = "erofs"

// Version changes when the same layers give other bytes: a key for caches.
const Version = "erofs-2"

// ErrLayer says that a layer is not one that an image can be made of.
var ErrLayer = errors.New("not a usable image layer")

// A Layer opens the tar of an image's layer, uncompressed. It may be called more than
// once. What it opens is read to its end, also past the end of the archive, so that it
// may check a digest there.
type Layer func() (io.ReadCloser, error)

// Stats counts what a build has done.
type Stats struct {
	Entries     int // of all the layers' archives
	Files       int // regular ones in the image; one with several names counts once
	Directories int // with the root
	Symlinks    int
	Others      int   // devices and FIFOs
	Content     int64 // bytes in the image's regular files, with their holes
	Size        int64 // of the image, in bytes; holes take no room on the disk
	Ignored     int   // extended attributes that no Linux file system would take
}

// Build writes the file system that the layers make together, the lowest first, to w,
// which loses what it had. Nothing is synced. After an error w is of no use; the error is
// an ErrLayer where a layer is to blame, and names the layer and the entry.
func Build(ctx context.Context, w *os.File, layers []Layer) (Stats, error) {
	if err := w.Truncate(0); err != nil {
		return Stats{}, fmt.Errorf("empty the image's file: %w", err)
	}
	b := &builder{ctx: ctx, out: newOutput(w), root: newDir()}
	for i, open := range layers {
		if err := b.layer(open); err != nil {
			return b.stats, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	if err := b.finish(); err != nil {
		return b.stats, err
	}
	return b.stats, nil
}

// A builder is one call of Build.
type builder struct {
	ctx   context.Context
	out   *output
	root  *inode   // of the layers so far
	data  []*inode // all that have blocks, also those that have been replaced since
	stats Stats

	implied int // directories made without an entry, also those that have been replaced since
}
