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

func TestParseFile(t *testing.T) {
	cases, err := parseFile([]byte(sample), "/dir", Given{})
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
		{"cases:\n  - kernal: x", `line 2: a case has no key "kernal"`},
		{"case:\n  - kernel: x", `line 1: a file of cases has no key "case"`},
		{"cases:\n  - cpus: many", `line 2: a whole number is wanted here, and this is "many"`},
		{"cases:\n  - timeout: 30", `line 2: "30" is no time`},
		{"cases:\n  - timeout: [1s]", "line 2"},
		{"cases:\n  - steps:\n    - poweron", `line 3: step "poweron"`},
		{"cases:\n  - steps:\n    - expect: a\n      send: b", "expect and send"},
		{"cases:\n  - steps:\n    - timeout: 3s", "needs one of"},
		{"cases:\n  - steps:\n    - expext: a", `no key "expext"`},
		{"cases:\n  - steps:\n    - send: a\n      stdout: b", "for run steps"},
		{"cases:\n  - steps:\n    - [a]", "a step is"},
		{"cases:\n  - matrix: {cpu: [1]}", `a matrix has no key "cpu"`},
		{"defaults: {name: x}\ncases:\n  - cpus: 1", "no name"},
		{"cases:\n  - cpus: 1\n---\ncases: []", "second document"},
		{"cases: {a: b}", "line 1"},
		{"\tcases:", "cannot start any token"},
		{"cases:\n  - cpus: 1\n  -\n", "line 3: an item of this list is empty"},
		{"cases:\n  - ~\n  - cpus: 1\n", "line 2: an item of this list is empty"},
		{"cases:\n  - steps:\n    - expect: a\n    -\n", "line 4: an item of this list is empty"},
		{"cases:\n  - initrd: [a, ~]", "line 2: an item of this list is empty"},
		{"cases:\n  - matrix:\n      append: [quiet, ]\n      cpus: [1, ~]", "line 4: an item of this list is empty"},
		{"cases:\n  - kernel: [a, b]", "line 2: a text is wanted here, and this is a list"},
		{"cases:\n  - append: {a: b}", "line 2: a text is wanted here, and this is a mapping"},
		{"cases:\n  - steps: poweroff", `line 2: a list is wanted here, and this is "poweroff"`},
		{"cases:\n  - kernel", `line 2: a case is written as "key: value", and this is "kernel"`},
		{"cases:\n  - cpus: 1\n    cpus: 2", "line 3: a case has cpus twice"},
		{"cases:\n  - &a\n    <<: *a\n    cpus: 1", "round in circles"},
		{"cases:\n  - <<: *a", "unknown anchor"},
		{"cases:\n  - <<: 5", "what is merged"},
		{"cases:\n  - ? [a]\n    : b", "a key must be a text"},
		{"# nothing", "empty"},
		{"~", "empty"},
		{"5", "a file of cases is written as"},
		{"cases:\n  - cpus: 0", "line 2: cpus 0: must be 1 or more"},
		{"cases:\n  - matrix: {cpus: [1, -1]}", "line 2: cpus -1"},
		{"cases:\n  - timeout: 0s", "line 2: timeout 0s: must be more than nothing"},
		{"cases:\n  - no-output: -1s", "line 2: no-output -1s: must be more than nothing"},
		{"cases:\n  - steps:\n    - expect: a\n      timeout: 0s", "line 4: timeout 0s"},
		{"cases:\n  - steps:\n    - expect: a\n      timeout: 1s\n      timeout: 2s", "line 5: a step has timeout twice"},
		{"cases:\n  - steps:\n    - expect: a\n      code: 0", "line 4: code is for run steps, and this is expect"},
		{"cases:\n  - steps:\n    - exit: 1\n      code: 1", "line 4: code is for run steps, and this is exit"},
		{"cases:\n  - steps:\n    - sleep: 1s\n      stderr: \"\"", "stderr is for run steps"},
		{"cases:\n  - steps:\n    - expect:", "line 3: expect needs a value"},
		{"cases:\n  - steps:\n    - poweroff: false", "line 3: poweroff has no value"},
		{"cases:\n  - steps:\n    - run: a\n      code: many", "a whole number"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			_, err := parseFile([]byte(tt.text), "", Given{})
			require.ErrorContains(t, err, tt.want)
			for _, ours := range []string{"smoke.", "struct", "yaml.", "items", "yaml:"} {
				require.NotContains(t, err.Error(), ours)
			}
			require.NotContains(t, err.Error(), "!!")
		})
	}
}

// TestScalarsAreTexts: a user who writes a number without quotes means what is written.
func TestScalarsAreTexts(t *testing.T) {
	cases, err := parseFile([]byte(`
cases:
  - name: 6.10
    append: 1
    memory: 256
    cpus: "2"
    expect-not: [1e3, true]
    matrix:
      memory: 0512
    steps:
      - expect: 5
      - send: yes
      - run: 010
        stdout: 3.10
        timeout: 1s
      - run: [sleep, 1]
      - poweroff: true
`), "", Given{})
	require.NoError(t, err)
	require.Len(t, cases, 1)
	c := cases[0]
	require.Equal(t, []string{"6.10", "1", "0512"}, []string{c.Name, c.Append, c.Memory})
	require.Equal(t, 2, c.CPUs)
	require.Equal(t, []string{"1e3", "true"}, c.ExpectNot)
	require.Equal(t, []Step{
		{Kind: Expect, Text: "5"},
		{Kind: Send, Text: "yes"},
		{Kind: Run, Text: "010", Stdout: "3.10", Timeout: time.Second},
		{Kind: Run, Text: "sleep 1"},
		{Kind: PowerOff},
	}, c.Steps)
}

func TestAnchors(t *testing.T) {
	cases, err := parseFile([]byte(`
x-common:
  login: &login
    expect: "login:"
    timeout: 9s
  words: &words [uname, -r]
cases:
  - &first
    name: first
    cpus: 2
    memory: 1G
    steps:
      - *login
      - run: *words
  - <<: *first
    name: second
    cpus: 4
    steps:
      - <<: *login
        timeout: 3s
  - <<: [{append: a}, {append: b, cpus: 3}]
    name: third
`), "", Given{})
	require.NoError(t, err)
	require.Len(t, cases, 3)
	require.Equal(t, []Step{{Kind: Expect, Text: "login:", Timeout: 9 * time.Second}, {Kind: Run, Text: "uname -r"}}, cases[0].Steps)
	second := cases[1]
	require.Equal(t, "second", second.Name)
	require.Equal(t, 4, second.CPUs)
	require.Equal(t, "1G", second.Memory)
	require.Equal(t, 8, cases[0].Line)
	require.Equal(t, []Step{{Kind: Expect, Text: "login:", Timeout: 3 * time.Second}}, second.Steps)
	require.Equal(t, "a", cases[2].Append)
	require.Equal(t, 3, cases[2].CPUs)
}

// TestFilesOfCases: they are relative to the file's folder, whose commas matter to
// disks alone, and an empty one is none.
func TestFilesOfCases(t *testing.T) {
	cases, err := parseFile([]byte(`
cases:
  - kernel: k
    modules: m
    symbols: s
    disks: [d, /abs, ""]
    matrix:
      initrd: ["", a.cpio, [b.cpio, ""]]
`), "/a,b", Given{})
	require.NoError(t, err)
	require.Len(t, cases, 3)
	for i, initrds := range [][]string{nil, {"/a,b/a.cpio"}, {"/a,b/b.cpio"}} {
		c := cases[i]
		require.Equal(t, initrds, c.Initrds)
		require.Equal(t, []string{"/a,b/k", "/a,b/m"}, []string{c.Kernel, c.Modules})
		require.Equal(t, []string{"/a,b/s"}, c.Symbols)
		require.Equal(t, []string{"/a,,b/d", "/abs"}, c.Disks)
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
		{Case{Steps: []Step{{Kind: Run, Text: "x", Code: 300}}}, "0 to 255"},
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
	// What is behind "--" is the first process's, and none of husk's words.
	c = Case{Append: "quiet -- single softlockup_panic=0", CPUs: 1, Memory: "1G"}
	require.Contains(t, c.BootFlags("rdinit=/x"), "--append=quiet rdinit=/x softlockup_panic=1 hung_task_panic=1 -- single softlockup_panic=0")
	c = Case{CommandLine: "whole -- single", CPUs: 1, Memory: "1G"}
	require.Contains(t, c.BootFlags("rdinit=/x"), "--cmdline=whole rdinit=/x -- single")
	c = Case{CommandLine: "whole", CPUs: 1, Memory: "1G"}
	require.Contains(t, strings.Join(c.BootFlags("rdinit=/x"), " "), "--cmdline=whole rdinit=/x")
}

// FuzzParseFile: no file of cases makes husk panic, and what is read can be checked.
func FuzzParseFile(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("cases:\n- steps: [{run: [a, b]}]\n"))
	f.Add([]byte("x-a: &a {memory: 1G}\ncases:\n- &c\n  <<: *a\n  cpus: 2\n- <<: [*c, *a]\n  matrix: {cpus: [1, 2], initrd: [\"\", [a, b]]}\n-\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		cases, err := parseFile(b, "dir", Given{})
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
