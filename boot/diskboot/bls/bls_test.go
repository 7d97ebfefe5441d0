package bls

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	e := Parse("/boot/loader/entries/0123-6.11.4-301.fc41.x86_64.conf", []byte(`# a comment
title Fedora Linux (6.11.4-301.fc41.x86_64) 41 (Cloud Edition)
version	6.11.4-301.fc41.x86_64
linux /vmlinuz-6.11.4-301.fc41.x86_64
initrd /initramfs-6.11.4-301.fc41.x86_64.img $tuned_initrd
options root=UUID=0123 ro
options   $kernelopts  x="a b"
grub_users $grub_users
architecture x64

broken
`))
	require.Equal(t, Entry{
		ID: "0123-6.11.4-301.fc41.x86_64", Title: "Fedora Linux (6.11.4-301.fc41.x86_64) 41 (Cloud Edition)",
		Version: "6.11.4-301.fc41.x86_64", Linux: "/vmlinuz-6.11.4-301.fc41.x86_64",
		Initrds: []string{"/initramfs-6.11.4-301.fc41.x86_64.img", "$tuned_initrd"},
		Options: `root=UUID=0123 ro $kernelopts  x="a b"`,
	}, e)
}

func TestTries(t *testing.T) {
	for file, want := range map[string]Entry{
		"a.conf": {ID: "a"}, "a+3.conf": {ID: "a"}, "a+0-3.conf": {ID: "a", Bad: true}, "a+2-1.conf": {ID: "a"},
		"a+b.conf": {ID: "a+b"}, "a+.conf": {ID: "a+"},
	} {
		require.Equal(t, want, Parse(file, nil), file)
	}
}

// From UAPI.10's examples, and the names that distributions give.
func TestCompare(t *testing.T) {
	ordered := []string{
		"~1", "", "ab", "abb", "abc", "0001", "002", "12", "122", "122.9", "123~rc1-1", "123", "123-a", "123-a.1", "123-a1",
		"123-a1.1", "123-3", "123-3.1", "123^patch1", "123^1", "123.a-1", "123.1-1", "123a-1", "124",
	}
	for i, a := range ordered {
		for k, b := range ordered {
			got, want := Compare(a, b), i-k
			require.True(t, got == 0 && want == 0 || got*want > 0, "%q %q: %d", a, b, got)
		}
	}
	require.Negative(t, Compare("6.1.0-9-amd64", "6.1.0-10-amd64"))
	require.Negative(t, Compare("0-rescue-0123", "6.11.4"))
	require.Negative(t, Compare("6.11.4-301.fc41", "6.11.10-300.fc41"))
}

func TestSortAndDefault(t *testing.T) {
	entries := []Entry{
		{ID: "m-0-rescue"},
		{ID: "m-6.9.1"},
		{ID: "m-6.11.1"},
		{ID: "m-7.0.0", Bad: true},
		{ID: "x", SortKey: "debian", Version: "6.1"},
		{ID: "y", SortKey: "debian", Version: "6.10"},
		{ID: "z", SortKey: "arch"},
	}
	Sort(entries)
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.ID)
	}
	require.Equal(t, []string{"z", "y", "x", "m-6.11.1", "m-6.9.1", "m-0-rescue", "m-7.0.0"}, ids)
	for conf, want := range map[string]int{"timeout 3\ndefault m-6.9.1.conf\n": 4, "default m-*\n": 3, "default M-6.9*": 4, "default q*\n": -1, "": -1, "default [": -1} {
		i, ok := Default(entries, []byte(conf))
		if !ok {
			i = -1
		}
		require.Equal(t, want, i, conf)
	}
}

func FuzzEntries(f *testing.F) {
	f.Add("a-6.1+0-1.conf", []byte("title A\nlinux /a\ninitrd /b /c\noptions x\nsort-key k\nversion 1.2~rc1\n"), "b-6.10.conf", []byte("linux /v\nversion 1.2\n"), []byte("default a*\n"))
	f.Fuzz(func(t *testing.T, nameA string, a []byte, nameB string, b []byte, conf []byte) {
		entries := []Entry{Parse(nameA, a), Parse(nameB, b)}
		require.Equal(t, Compare(nameA, nameB), -Compare(nameB, nameA))
		require.Zero(t, Compare(nameA, nameA))
		Sort(entries)
		if i, ok := Default(entries, conf); ok {
			require.Less(t, i, 2)
		}
	})
}
