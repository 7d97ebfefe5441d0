package tmpfs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const defaults = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

func TestParse(t *testing.T) {
	for text, want := range map[string]Options{
		"":                                  {defaults, ""},
		"size=64m,mode=1777":                {defaults, "size=64m,mode=1777"},
		"rw,size=65536k":                    {defaults, "size=65536k"},
		"ro,exec,size=1,,suid":              {unix.MS_NODEV | unix.MS_RDONLY, "size=1"},
		"noexec,exec,noexec,dev,suid,async": {unix.MS_NOEXEC, ""},
		"size=1,mode=700,size=2":            {defaults, "size=2,mode=700"},
		"rprivate,uid=5,nr_inodes=10k":      {defaults, "uid=5,nr_inodes=10k"},
	} {
		o, err := Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, want, o, text)
	}
	for _, text := range []string{"nonesuch", "size", "size=", "exec=1", "context=x"} {
		_, err := Parse(text)
		require.ErrorContains(t, err, `"`+strings.Split(text, ",")[0]+`"`)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("size=64m,mode=1777,noexec,ro")
	f.Fuzz(func(t *testing.T, text string) {
		o, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(o.Data)
		require.NoError(t, err)
		require.Equal(t, o.Data, again.Data)
	})
}
