package vmmtest

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheProgramIsBuilt where it is not built in, as for who imports the package.
func TestTheProgramIsBuilt(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil || testing.Short() {
		t.Skip("builds a program with go")
	}
	t.Setenv("GOFLAGS", "-race -cover") // of the tests themselves
	b, err := buildProgram("go")
	require.NoError(t, err)
	require.Equal(t, "\x7fELF", string(b[:4]))

	_, err = buildProgram("false")
	require.ErrorContains(t, err, "not built in and go build failed")
	require.ErrorContains(t, err, "HUSK_INIT=FILE")
}
