package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/guestinit/spec"
)

func TestSplit(t *testing.T) {
	tests := []struct {
		line         string
		plain, shell []string
	}{
		{"", nil, nil},
		{" a  b\tc\n", []string{"a", "b", "c"}, []string{"a", "b", "c"}},
		{`x="a b" c`, []string{"x=a b", "c"}, []string{"x=a b", "c"}},
		{`a "" b`, []string{"a", "", "b"}, []string{"a", "", "b"}},
		{`a;b&&c||d`, []string{"a;b&&c||d"}, []string{"a", "\x00;", "b", "\x00&&", "c", "\x00||", "d"}},
		{`echo "a;b" 'c d'`, []string{"echo", "a;b", "'c", "d'"}, []string{"echo", "a;b", "c d"}},
		{`a\ b`, []string{`a\`, "b"}, []string{"a b"}},
		{"a # b", []string{"a", "#", "b"}, []string{"a"}},
		{"a#b", []string{"a#b"}, []string{"a#b"}},
	}
	for _, tt := range tests {
		got, err := split(tt.line, false)
		require.NoError(t, err, tt.line)
		require.Equal(t, tt.plain, got, tt.line)
		got, err = split(tt.line, true)
		require.NoError(t, err, tt.line)
		require.Equal(t, tt.shell, got, tt.line)
	}
	_, err := split(`a "b`, true)
	require.ErrorIs(t, err, errQuote)
	for _, line := range []string{"a\x00b", "\\\x00;", "'\x00;'"} {
		_, err = split(line, true)
		require.Error(t, err, "%q", line)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(`echo "a b"; c && d || e # f`, true)
	f.Add(`console=ttyS0 quiet husk.run="ls -l"`, false)
	f.Fuzz(func(t *testing.T, line string, shell bool) {
		words, err := split(line, shell)
		if err != nil {
			return
		}
		for _, w := range words {
			if strings.Contains(w, "\x00") {
				require.True(t, shell)
				require.Contains(t, []string{"\x00;", "\x00&&", "\x00||"}, w)
			}
		}
	})
}

func TestCommandLine(t *testing.T) {
	d := spec.Demo{Do: spec.Idle, Code: 9}
	line := `console=ttyS0 husk.marker=0x7 husk.quiet=1 quiet -- husk.run="echo hi; exit 3"`
	require.NoError(t, applyCommandLine(&d, line))
	require.Equal(t, spec.Demo{Do: spec.Run, Run: "echo hi; exit 3", Code: 9, Marker: 7, Quiet: true}, d)
	require.NoError(t, applyCommandLine(&d, "husk.do=exit husk.code=255 husk.count=12"))
	require.Equal(t, uint32(12), d.Count)
	require.Equal(t, spec.Exit, d.Do)
	require.Equal(t, byte(255), d.Code)

	require.ErrorContains(t, applyCommandLine(&d, "husk.code=256"), "husk.code=256: not a number from 0 to 255")
	require.ErrorContains(t, applyCommandLine(&d, "husk.dance=1"), "no such option")
}

// event is what the kernel sends for a key.
func event(kind, code uint16, value uint32) []byte {
	e := make([]byte, eventSize)
	binary.LittleEndian.PutUint16(e[eventType:], kind)
	binary.LittleEndian.PutUint16(e[eventCode:], code)
	binary.LittleEndian.PutUint32(e[eventValue:], value)
	return e
}

func TestPowerButton(t *testing.T) {
	other := append(event(0, 0, 0), event(evKey, 30, 1)...)
	release := event(evKey, keyPower, 0)
	press := event(evKey, keyPower, pressed)
	require.True(t, isPressed(bytes.NewReader(append(append(other, release...), press...))))
	require.False(t, isPressed(bytes.NewReader(append(other, release...))))
	require.False(t, isPressed(bytes.NewReader(press[:20])))
}

// inShell runs a line in the shell.
func inShell(text string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	sh := &shell{out: &out, err: &err}
	sh.run(text)
	return sh.code, out.String(), err.String()
}

func TestShell(t *testing.T) {
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, []byte("content\n"), 0o644))
	tests := []struct {
		line           string
		code           int
		stdout, stderr string
	}{
		{"echo a 'b  c'", 0, "a b  c\n", ""},
		{"cat " + file, 0, "content\n", ""},
		{"cat /nowhere", 1, "", "cat: open /nowhere: no such file or directory\n"},
		{"cat /nowhere || echo no $?", 0, "no 1\n", "cat: open /nowhere: no such file or directory\n"},
		{"echo a && exit 4 && echo b; echo c", 4, "a\n", ""},
		{"exit 1; echo more", 1, "", ""},
		{"exit many", 1, "", "exit: many: not a number from 0 to 255\n"},
		{"true && false || echo b", 0, "b\n", ""},
		{"false || false && echo b", 1, "", ""},
		{"; echo a;", 0, "a\n", ""},
		{"sh -c 'kill -9 $$'", 137, "", ""},
		{"nonesuch", 127, "", "nonesuch: no such command; \"help\" lists the shell's own\n"},
		{"sleep -1", 1, "", "sleep: -1: not a number of seconds\n"},
		{"write " + file + " new words && cat " + file, 0, "new words\n", ""},
		{"write " + file + ".none x", 1, "", "write: open " + file + ".none: no such file or directory\n"},
		{"insmod " + file + ".none", 1, "", "insmod: open " + file + ".none: no such file or directory\n"},
		{"lines 0", 0, "the last of 0 lines\n", ""},
		{"lines", 1, "", "lines: want a number\n"},
		{"uname -s", 0, "Linux\n", ""},
		{"uname -sm", 0, "Linux x86_64\n", ""},
		{"uname -x", 1, "", "uname: -x: there are -s, -n, -r, -v, -m and -a\n"},
		{`echo "`, 2, "", "a quote is not closed\n"},
		{"", 0, "", ""},
	}
	for _, tt := range tests {
		code, stdout, stderr := inShell(tt.line)
		require.Equal(t, tt.code, code, tt.line)
		require.Equal(t, tt.stdout, stdout, tt.line)
		require.Equal(t, tt.stderr, stderr, tt.line)
	}
}

func TestShellLooksAround(t *testing.T) {
	for line, want := range map[string]string{
		"help":          "poweroff",
		"ls -l /proc/1": "cmdline",
		"ps":            "     1 ",
		"mount":         " /proc ",
		"free":          "total",
		"uname":         "Linux",
		"uptime":        " s\n",
	} {
		code, stdout, stderr := inShell(line)
		require.Zero(t, code, line+stderr)
		require.Contains(t, stdout, want, line)
	}
}

func TestLines(t *testing.T) {
	code, stdout, _ := inShell("lines 1000")
	require.Zero(t, code)
	all := strings.Split(stdout, "\n")
	require.Len(t, all, 1002)
	for i, l := range all[:1000] {
		require.True(t, strings.HasPrefix(l, fmt.Sprintf("line %d of 1000 .", i+1)), l)
		require.Len(t, l, lineWidth-1)
	}
	require.Equal(t, "the last of 1000 lines", all[1000])
}

func TestAlive(t *testing.T) {
	require.True(t, alive(os.Getpid()))
	require.False(t, alive(1<<30))
}

func TestOwnPrograms(t *testing.T) {
	for _, tt := range []struct{ argv, want []string }{
		{[]string{"echo", "a", "b"}, []string{self, "echo", builtinArg, "echo", "a", "b"}},
		{[]string{"sh", "-c", "echo a; echo b"}, []string{self, "sh", shellArg, "echo a; echo b"}},
		{[]string{"/bin/sh", "-c", "echo", "name"}, []string{self, "/bin/sh", shellArg, "echo"}},
		{[]string{"sh"}, []string{self, "sh", shellArg}},
		{[]string{"sh", "script"}, nil},
		{[]string{"nonesuch"}, nil},
		{[]string{"/bin/echo"}, nil},
	} {
		require.Equal(t, tt.want, ownProgram(tt.argv), tt.argv)
	}
}

func TestShellInteracts(t *testing.T) {
	var out bytes.Buffer
	sh := &shell{out: &out, err: &out, prompt: prompt}
	sh.interact(strings.NewReader("echo a\n\nexit 7\necho b\n"))
	require.Equal(t, "husk# a\nhusk# husk# ", out.String())
	require.Equal(t, 7, sh.code)

	out.Reset()
	sh = &shell{out: &out, err: &out, prompt: prompt}
	sh.interact(strings.NewReader("echo last"))
	require.Equal(t, "husk# last\n\n", out.String())

	out.Reset()
	(&shell{out: &out, err: &out}).interact(strings.NewReader("echo last"))
	require.Equal(t, "last\n", out.String())
}
