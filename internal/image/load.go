package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Load brings all images of an archive into the store: what docker save writes, or a tar
// of an OCI layout, compressed or not, or the folder of a layout. name is what one that has
// no name in there is called; "" for none. With an error come those that were loaded
// before it.
func (s *Store) Load(ctx context.Context, f *os.File, name string, o PullOptions) ([]*Image, error) {
	o.anyPlatform = o.Platform.OS == ""
	o = o.withDefaults()
	var ref Reference
	if name != "" {
		var err error
		if ref, err = ParseReference(name); err != nil {
			return nil, err
		}
		if ref.Digest != "" {
			return nil, fmt.Errorf("%q: %w: what is loaded can have a tag, not a digest", name, ErrName)
		}
	}
	adding, err := s.add(ctx)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	list, err := s.loadFile(ctx, f, "", o, func(list []*candidate) error {
		if name == "" {
			return nil
		}
		if len(list) != 1 {
			return fmt.Errorf("%d images are in it, and %s can be the name of one only", len(list), name)
		}
		list[0].names = []string{ref.Familiar()}
		return nil
	})
	s.release(adding, err)
	_ = s.sweep() // if it fails, the next one tries
	if err != nil {
		return list, plainly(fmt.Errorf("%s: %w", f.Name(), err))
	}
	return list, nil
}

// load brings the images of a source that is no registry into the store.
func (s *Store) load(ctx context.Context, src Source, o PullOptions) (_ []*Image, err error) {
	if src.Transport == FromDaemon {
		return s.loadFromDaemon(ctx, src.Reference, o)
	}
	f, err := OpenArchive(src.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w; a relative path is one of the current directory", src, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := s.loadFile(ctx, f, src.Tag, o, single)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src, err)
	}
	return list, nil
}

// single refuses more than one image.
func single(list []*candidate) error {
	if len(list) > 1 {
		return fmt.Errorf("%d images are in it; name one behind a colon, or husk load takes all", len(list))
	}
	return nil
}

// loadFile brings the images of an archive or a folder into the store, if agree agrees.
func (s *Store) loadFile(ctx context.Context, f *os.File, tag string, o PullOptions, agree func([]*candidate) error) ([]*Image, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var t tree
	if info.IsDir() {
		t, err = openFolder(f.Name())
	} else {
		t, err = s.openArchive(ctx, f)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = t.close() }()
	return s.loadTree(ctx, t, tag, o, agree)
}

// loadTree brings the images of a tree into the store.
func (s *Store) loadTree(ctx context.Context, t tree, tag string, o PullOptions, agree func([]*candidate) error) ([]*Image, error) {
	var from origin
	var list []*candidate
	a, err := openDockerArchive(t)
	switch {
	case err == nil:
		from = a
		list, err = a.candidates(ctx, tag, o)
	case errors.Is(err, fs.ErrNotExist) && isLayout(t):
		from = layout{t}
		list, err = layout{t}.candidates(ctx, tag, o)
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: neither a docker archive (manifest.json) nor an OCI layout (oci-layout) is in it", ErrFormat)
	}
	if err == nil {
		err = agree(list)
	}
	if err != nil {
		return nil, err
	}
	var images []*Image
	for _, c := range list {
		i, err := s.ingest(ctx, from, c, o)
		if err != nil {
			return images, err
		}
		images = append(images, i)
	}
	return images, nil
}
