package rootfs

import (
	"fmt"
	"os"

	"github.com/containerd/continuity/pkg/ext4"
)

// EmptyFileSystem is what WriteEmpty makes, by the name that mount(2) has.
const EmptyFileSystem = "ext4"

// The sizes that WriteEmpty takes, in bytes.
const (
	MinEmpty = 64 << 20
	MaxEmpty = 1 << 40
)

// WriteEmpty makes w, which loses what it had, a disk of size bytes with an empty file
// system on it, which can be written to. What is not written takes no room on the host.
// There is no journal: the disk is not meant to outlive a crash of its machine.
func WriteEmpty(w *os.File, size int64) error {
	if size < MinEmpty || size > MaxEmpty {
		return fmt.Errorf("a writable disk of %d bytes: it can have %d (64 MiB) to %d (1 TiB)", size, int64(MinEmpty), int64(MaxEmpty))
	}
	// The library wants a path; this one leads to the open file also if that has
	// no name (any more).
	if err := ext4.Create(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), size&^(blockSize-1)); err != nil {
		return fmt.Errorf("make the writable disk %s: %w", w.Name(), err)
	}
	return nil
}
