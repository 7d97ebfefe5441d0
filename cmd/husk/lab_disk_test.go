package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices/disk"
)

// TestWhatALabWritesToIsShared: or else what a guest in it wrote would be gone.
func TestWhatALabWritesToIsShared(t *testing.T) {
	dir, links := t.TempDir(), t.TempDir()
	image := filepath.Join(dir, "a,b.raw")
	require.NoError(t, os.WriteFile(image, []byte("x"), 0o600))
	link := filepath.Join(links, "link.raw")
	require.NoError(t, os.Symlink(image, link))

	path, err := diskInLab(link)
	require.NoError(t, err)
	require.Equal(t, image, path, "the folder of the file itself, not of a link to it")
	path, err = diskInLab(filepath.Join(dir, "a,,b.raw") + ",snapshot=on")
	require.NoError(t, err)
	require.Empty(t, path)

	log := slog.New(slog.DiscardHandler)
	locks, err := lockDisks([]disk.Spec{{File: image}}, log)
	require.NoError(t, err)
	_, err = lockDisks([]disk.Spec{{File: link, ReadOnly: true}}, log)
	require.ErrorIs(t, err, disk.ErrInUse)
	locks.close()
	locks, err = lockDisks([]disk.Spec{{File: image, Snapshot: true}, {File: link, ReadOnly: true}}, log)
	require.NoError(t, err)
	locks.close()

	_, err = diskInLab(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = diskInLab("/proc/self/status")
	require.ErrorContains(t, err, "snapshot=on")
	_, err = diskInLab("/proc/self/status,ro")
	require.NoError(t, err)
	_, err = diskInLab("/dev/null,ro")
	require.ErrorContains(t, err, "--accel kvm")
}

// TestWhatALabsGuestWritesToAShare goes to this host.
func TestWhatALabsGuestWritesToAShare(t *testing.T) {
	dir := t.TempDir()
	path, err := shareInLab("t=" + dir)
	require.NoError(t, err)
	require.Equal(t, dir, path)
	path, err = shareInLab("t=" + dir + ",ro")
	require.NoError(t, err)
	require.Empty(t, path)
	path, err = shareInLab("t=" + file(t, "alone", "x"))
	require.NoError(t, err)
	require.DirExists(t, path)
	_, err = shareInLab("t=/proc")
	require.ErrorContains(t, err, "add ro")
	_, err = shareInLab("t=" + filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
