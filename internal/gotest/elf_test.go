package gotest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNeedsOfThisTest: a Go program is static, or was linked with cgo. What the
// loader itself says is the oracle.
func TestNeedsOfThisTest(t *testing.T) {
	for _, program := range []string{os.Args[0], "/bin/sh"} {
		program, err := filepath.Abs(program)
		require.NoError(t, err)
		got, err := Needs(program, nil)
		require.NoError(t, err)
		out, err := exec.Command("ldd", program).CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("statically linked")) {
			require.Empty(t, got, "%s", out)
			continue
		}
		var want []string
		for line := range strings.Lines(string(out)) {
			for _, word := range strings.Fields(line) {
				if filepath.IsAbs(word) {
					want = append(want, filepath.Base(word))
				}
			}
		}
		var names []string
		for _, file := range got {
			require.FileExists(t, file)
			if file != loaderCache {
				names = append(names, filepath.Base(file))
			}
		}
		slices.Sort(want)
		slices.Sort(names)
		require.Equal(t, want, names)
	}
}

func TestWhatIsNoProgram(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"text": "#!/bin/sh\n", "empty": "", "short": "\x7fELF"} {
		_, err := Needs(write(t, filepath.Join(dir, name), content), nil)
		require.ErrorIs(t, err, ErrBinary, name)
		require.ErrorContains(t, err, "no ELF file", name)
	}
	_, err := Needs(dir+"/none", nil)
	require.ErrorIs(t, err, ErrBinary)
}

func TestLibraries(t *testing.T) {
	dir := t.TempDir()
	lib := write(t, dir+"/lib/libx.so.1", "")
	got, err := findLibrary("libx.so.1", []string{dir, dir + "/lib"})
	require.NoError(t, err)
	require.Equal(t, lib, got)
	got, err = findLibrary(lib, nil)
	require.NoError(t, err)
	require.Equal(t, lib, got)

	// An ELF header for another processor.
	header := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_AARCH64), Version: uint32(elf.EV_CURRENT), Ehsize: 64}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var b bytes.Buffer
	require.NoError(t, binary.Write(&b, binary.LittleEndian, header))
	write(t, dir+"/libx.so.1", b.String())
	got, err = findLibrary("libx.so.1", []string{dir, dir + "/lib"})
	require.NoError(t, err)
	require.Equal(t, lib, got, "one for another processor is passed over")
	_, err = findLibrary("liby.so", []string{dir})
	require.Error(t, err)

	conf := write(t, dir+"/ld.so.conf", "# where\ninclude conf.d/*.conf\n/opt/lib # ours\n")
	write(t, dir+"/conf.d/a.conf", "/opt/a\ninclude ../ld.so.conf\n") // round and round
	require.Equal(t, []string{"/opt/a", "/opt/lib"}, configuredFolders(conf))
	require.Empty(t, configuredFolders(dir+"/none"))
}
