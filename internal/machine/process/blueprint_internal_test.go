package process

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/guestinit/spec"
	"github.com/huskvm/husk/internal/machine"
)

// TestMountsAreInOrder: what is below another is mounted after it, whatever either is.
func TestMountsAreInOrder(t *testing.T) {
	dir := t.TempDir()
	file := dir + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	c, err := container(machine.Spec{
		Volumes: []machine.Volume{{Host: dir, Guest: "/a"}, {Host: file, Guest: "/b/c/file", ReadOnly: true}},
		Tmpfs:   []machine.Tmpfs{{Guest: "/a/tmp"}, {Guest: "/b", Options: "size=1m"}},
	})
	require.NoError(t, err)
	require.Equal(t, []spec.Mount{
		{Target: "/b", Options: "size=1m"},
		{Target: "/a", Tag: "husk-volume-0"},
		{Target: "/a/tmp"},
		{Target: "/b/c/file", Tag: "husk-volume-1", File: "file", ReadOnly: true},
	}, c.Mounts)
}
