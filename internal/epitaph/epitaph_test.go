package epitaph

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLastLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	require.Empty(t, LastLine(file))
	for text, want := range map[string]string{
		"":                         "",
		"\n \n":                    "",
		"one\ntwo\n\n":             "two",
		"one":                      "one",
		"x\npanic: no\n\nmain()\n": "panic: no",
		"fatal error: y\nstack\n":  "fatal error: y",
	} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		require.Equal(t, want, LastLine(file), "%q", text)
	}
}
