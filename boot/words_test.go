package boot

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWord(t *testing.T) {
	require.Equal(t, "/b", Word("rdinit=/a quiet rdinit=/b -- rdinit=/c", "rdinit"))
	require.Empty(t, Word("xrdinit=/a -- rdinit=/c", "rdinit"))
}

func TestAddWords(t *testing.T) {
	for _, tt := range []struct {
		line string
		more []string
		want string
	}{
		{"", nil, ""},
		{"a", []string{"", "b"}, "a b"},
		{"a -- b", []string{"c -- d", "e"}, "a c e -- b d"},
		{"a --b", []string{""}, "a --b"},
		{"", []string{"a"}, "a"},
		{"-- b", []string{"a"}, "a -- b"},
		{"a --", []string{"b"}, "a b"},
	} {
		require.Equal(t, tt.want, AddWords(tt.line, tt.more...))
	}
}
