package smoke

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const sample = `
defaults:
  memory: 256M
  timeout: 2m
  append: quiet
cases:
  - name: boots
    kernel: bzImage
    initrd: a.cpio
    matrix:
      cpus: [1, 4]
      append: ["", nokaslr]
    steps:
      - expect: "login:"
        timeout: 30s
      - send: "root\n"
      - run: uname -r
        stdout: /6\.1/
      - run: [test, -e, "/a b"]
        code: 1
      - sleep: 1500ms
      - poweroff
    expect-not: segfault
    allow:
      - warning=/drivers\/foo/
    max-boot: 800ms
  - kernel: /abs/vmlinux
    disks: [debian.qcow2]
    memory: 1G
    steps:
      - exit: 3
    retries: 0
`

func base() Case {
	return Case{Timeout: DefaultTimeout, NoOutput: DefaultNoOutput, Reboots: DefaultReboots, Retries: DefaultRetries}
}

func TestParseFile(t *testing.T) {
	cases, err := parseFile([]byte(sample), "/dir", base())
	require.NoError(t, err)
	require.Len(t, cases, 5)
	names := make([]string, len(cases))
	for i, c := range cases {
		names[i] = c.Name
		require.NoError(t, c.Check())
	}
	require.Equal(t, []string{
		"boots [append=, cpus=1]", "boots [append=, cpus=4]", "boots [append=nokaslr, cpus=1]", "boots [append=nokaslr, cpus=4]", "case 2",
	}, names)
	c := cases[3]
	require.Equal(t, 7, c.Line)
	require.Equal(t, 27, cases[4].Line)
	require.Equal(t, "/dir/bzImage", c.Kernel)
	require.Equal(t, []string{"/dir/a.cpio"}, c.Initrds)
	require.Equal(t, "quiet nokaslr", c.Append)
	require.Equal(t, 4, c.CPUs)
	require.Equal(t, "256M", c.Memory)
	require.Equal(t, 2*time.Minute, c.Timeout)
	require.Equal(t, 800*time.Millisecond, c.MaxBoot)
	require.Equal(t, []Step{
		{Kind: Expect, Text: "login:", Timeout: 30 * time.Second},
		{Kind: Send, Text: "root\n"},
		{Kind: Run, Text: "uname -r", Stdout: `/6\.1/`},
		{Kind: Run, Text: "test -e '/a b'", Code: 1},
		{Kind: Sleep, For: 1500 * time.Millisecond},
		{Kind: PowerOff},
	}, c.Steps)
	last := cases[4]
	require.Equal(t, "/abs/vmlinux", last.Kernel)
	require.Equal(t, []string{"/dir/debian.qcow2"}, last.Disks)
	require.Equal(t, "1G", last.Memory)
	require.Zero(t, last.Retries)
	require.Equal(t, DefaultReboots, last.Reboots)
}

// TestFileMistakes: each is named, with its line where there is one.
func TestFileMistakes(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "empty"},
		{"cases: []", "no cases"},
		{"cases:\n  - kernal: x", "line 2: field kernal: there is no such key"},
		{"case:\n  - kernel: x", "line 1: field case: there is no such key"},
		{"cases:\n  - cpus: many", "line 2: cannot unmarshal `many` into int"},
		{"cases:\n  - timeout: 30", `line 2: "30" is no time`},
		{"cases:\n  - timeout: [1s]", "line 2"},
		{"cases:\n  - steps:\n    - poweron", `line 3: step "poweron"`},
		{"cases:\n  - steps:\n    - expect: a\n      send: b", "expect and send"},
		{"cases:\n  - steps:\n    - timeout: 3s", "needs one of"},
		{"cases:\n  - steps:\n    - expext: a", `no "expext"`},
		{"cases:\n  - steps:\n    - send: a\n      stdout: b", "for run steps"},
		{"cases:\n  - steps:\n    - [a]", "a step is"},
		{"cases:\n  - name: a\n  - name: a", `two cases are named "a"`},
		{"cases:\n  - matrix: {cpus: [1, 1]}", "two cases are named"},
		{"cases:\n  - matrix: {cpu: [1]}", "there is no such key"},
		{"defaults: {name: x}\ncases:\n  - cpus: 1", "no name"},
		{"cases:\n  - cpus: 1\n---\ncases: []", "second document"},
		{"cases: {a: b}", "line 1"},
		{"\tcases:", "cannot start any token"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			_, err := parseFile([]byte(tt.text), "", Case{})
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "smoke.")
			require.NotContains(t, err.Error(), "!!")
		})
	}
}

// TestCheck: what a case cannot be.
func TestCheck(t *testing.T) {
	tests := []struct {
		c    Case
		want string
	}{
		{Case{Steps: []Step{{Kind: Expect, Text: "/(/"}}}, "step 1 (expect)"},
		{Case{Steps: []Step{{Kind: Run, Text: " "}}}, "no command"},
		{Case{Steps: []Step{{Kind: Sleep}}}, "how long"},
		{Case{Steps: []Step{{Kind: Exit, Code: 300}}}, "0 to 255"},
		{Case{Steps: []Step{{Kind: PowerOff}, {Kind: Expect, Text: "x"}}}, "nothing can come behind it"},
		{Case{Steps: []Step{{Kind: "dance"}}}, "no such kind"},
		{Case{Steps: []Step{{Kind: Run, Text: "x", Stdout: "/(/"}}}, "stdout"},
		{Case{ExpectNot: []string{"/[/"}}, "expect-not"},
		{Case{NoDetect: []string{"nothing"}}, "nothing"},
		{Case{Allow: []string{"nothing=/x/"}}, "nothing"},
		{Case{CPUs: -1}, "cpus"},
		{Case{Memory: "lots"}, "memory"},
		{Case{Disks: []string{"x,y=z"}}, "disk"},
		{Case{RetryOn: []string{"pass"}}, "retry-on"},
		{Case{Timeout: -1}, "timeout"},
		{Case{Append: "a", CommandLine: "b"}, "cmdline replaces"},
	}
	for _, tt := range tests {
		err := tt.c.Check()
		require.ErrorIs(t, err, ErrCase)
		require.ErrorContains(t, err, tt.want)
	}
	require.NoError(t, Case{}.Check())
}

func TestShortened(t *testing.T) {
	require.Equal(t, []string{"a/bzImage", "b/bzImage"}, shortened([]string{"/x/a/bzImage", "/x/b/bzImage"}))
	require.Equal(t, []string{"1", "4"}, shortened([]string{"1", "4"}))
	require.Equal(t, []string{"a", "a"}, shortened([]string{"a", "a"}))
}

func TestShellLine(t *testing.T) {
	require.Equal(t, `echo 'a b' 'it'\''s' '' x=1 '$y'`, shellLine([]string{"echo", "a b", "it's", "", "x=1", "$y"}))
}

func TestEscape(t *testing.T) {
	for _, text := range []string{"root\n", "\x03", `a\b"c'`, "ü\t\xff", ""} {
		got, err := Unescape(escape(text))
		require.NoError(t, err)
		require.Equal(t, text, got)
	}
	_, err := Unescape(`a\q`)
	require.ErrorContains(t, err, "backslash")
}

func TestBootFlags(t *testing.T) {
	c := Case{Kernel: "k", Append: "quiet hung_task_panic=0", Disks: []string{"a", "b,ro", "c,snapshot=off"}, CPUs: 2, Memory: "1G", Boot: []string{"--rng=true"}}
	require.Equal(t, []string{
		"--kernel=k", "--cpus=2", "--memory=1G", "--disk=a,snapshot=on", "--disk=b,ro", "--disk=c,snapshot=off",
		"--append=quiet hung_task_panic=0 rdinit=/x softlockup_panic=1", "--debug-exit", "--rng=true",
	}, c.BootFlags("rdinit=/x"))
	c = Case{CommandLine: "whole", CPUs: 1, Memory: "1G"}
	require.Contains(t, strings.Join(c.BootFlags("rdinit=/x"), " "), "--cmdline=whole rdinit=/x")
}

// FuzzParseFile: no file of cases makes husk panic, and what is read can be checked.
func FuzzParseFile(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("cases:\n- steps: [{run: [a, b]}]\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		cases, err := parseFile(b, "dir", base())
		if err != nil {
			return
		}
		for _, c := range cases {
			_ = c.Check()
			_ = c.withDefaults().BootFlags("")
			_ = c.Reproduce()
		}
	})
}
