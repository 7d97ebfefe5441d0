package agent

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEndedInput: also where nobody has made /dev/null yet, a command's input has ended.
func TestEndedInput(t *testing.T) {
	for _, null := range []string{os.DevNull, filepath.Join(t.TempDir(), "null")} {
		f, err := endedInput(null)
		require.NoError(t, err)
		b, err := io.ReadAll(f)
		require.NoError(t, err)
		require.Empty(t, b)
		require.NoError(t, f.Close())
	}
	_, err := endedInput("/dev/null/x")
	require.Error(t, err)
}
