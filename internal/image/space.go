package image

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// explain adds to an error of a write what to do about it.
func explain(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w; husk rmi makes room, and XDG_DATA_HOME names another place for images", err)
	}
	return err
}

// isFull tells whether an error is that there is no room.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// room tells whether the store's file system has room for so many bytes more.
func (s *Store) room(need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return nil //nolint:nilerr // then it will show when it is written
	}
	if free := int64(st.Bavail) * st.Bsize; free >= 0 && need > free {
		return fmt.Errorf("%s: %w: %d MiB are needed and %d MiB free", s.dir, unix.ENOSPC, need>>20, free>>20)
	}
	return nil
}
