package console

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func pattern(t testing.TB, s string) Pattern {
	t.Helper()
	p, err := ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// slowly writes text byte by byte, one each millisecond, and waits a second.
func slowly(tr *Transcript, text string) {
	for i := range len(text) {
		time.Sleep(time.Millisecond)
		tr.Add(time.Duration(i+1)*time.Millisecond, []byte{text[i]})
	}
	time.Sleep(time.Second)
}

func TestExpect(t *testing.T) {
	for _, c := range []struct {
		name, text string
		patterns   []string
		want       []string // what they match; "" where they do not until the console's end
	}{
		{"a prompt", "Debian 12 host ttyS0\r\n\r\nhost login: ", []string{"login: "}, []string{"login: "}},
		{"in order", "a b a\n", []string{"a", "a", "b"}, []string{"a", "a", ""}},
		{"behind itself", "aaa", []string{"aa", "a"}, []string{"aa", "a"}},
		{"sequences", "\x1b[1;32mhost\x1b[0m:~\x1b[m# ", []string{"host:~# "}, []string{"host:~# "}},
		{"over lines", "one\r\ntwo\r\n", []string{"one\ntwo"}, []string{"one\ntwo"}},
		{"a line's start", "xroot\nroot\n", []string{`/^root$/`}, []string{"root"}},
		{"a line's start behind a match", "ab\nb\n", []string{"a", `/^b/`}, []string{"a", "b"}},
		{"a line's end comes", "okay\nok\n", []string{`/ok$/`}, []string{"ok"}},
		{"a prompt's end", "# ls\r\nfile\r\n# ", []string{`/# $/`}, []string{"# "}},
		{"all digits", "Linux version 6.12.41 (x)\n", []string{`/version [0-9.]+/`}, []string{"version 6.12.41"}},
		{"all digits at the end", "load 42", []string{`/\d+/`}, []string{"42"}},
		{"case", "LOGIN: ", []string{`/login/i`}, []string{"LOGIN"}},
		{"dot is no line end", "a\nb\n", []string{`/a.b/`}, []string{""}},
		{"dot is one with s", "a\nb\n", []string{`/a.b/s`}, []string{"a\nb"}},
		{"whole words", "rooted root ", []string{`/\broot\b/`}, []string{"root"}},
		{"the line decides", "BUG a b\nc b\n", []string{`/BUG.*b/s`}, []string{"BUG a b"}},
		{"the first alternative", "ab", []string{`/a|ab/`}, []string{"a"}},
		{"the longer alternative", "ab", []string{`/ab|a/`}, []string{"ab"}},
		{"characters", "ä ❯ ", []string{`/❯ /`}, []string{"❯ "}},
		{"no character", "\xff\xfe ", []string{`/. /`}, []string{"\xfe "}},
		{"not there", "x\n", []string{"y"}, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, write := range []func(*Transcript, string){
				func(tr *Transcript, text string) { tr.Add(0, []byte(text)) },
				slowly,
			} {
				synctest.Test(t, func(t *testing.T) {
					tr := New()
					var writer sync.WaitGroup
					writer.Go(func() {
						write(tr, c.text)
						tr.Close()
					})
					defer writer.Wait()
					cur := tr.Cursor()
					for i, p := range c.patterns {
						m, err := cur.Expect(t.Context(), pattern(t, p))
						if m.Text != c.want[i] || (err == nil) != (c.want[i] != "") {
							t.Errorf("%s: %q, %v; want %q", p, m.Text, err, c.want[i])
						}
						if err != nil && !errors.Is(err, ErrEnded) {
							t.Errorf("%s: %v", p, err)
						}
					}
				})
			}
		})
	}
}

func TestExpectDoesNotWaitForAPrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New()
		tr.Add(7*time.Millisecond, []byte("login: "))
		before := time.Now()
		m, err := tr.Cursor().Expect(t.Context(), pattern(t, "login: "))
		if err != nil || m.At != 7*time.Millisecond || time.Since(before) != 0 {
			t.Errorf("%+v, %v after %s", m, err, time.Since(before))
		}
	})
}

func TestExpectGroups(t *testing.T) {
	tr := New()
	tr.Add(time.Second, []byte("uid=0 gid="))
	tr.Add(2*time.Second, []byte("12\n"))
	m, err := tr.Cursor().Expect(t.Context(), pattern(t, `/uid=(\d+) gid=(\d+)|(x)/`))
	if err != nil || len(m.Groups) != 3 || m.Groups[0] != "0" || m.Groups[1] != "12" || m.Groups[2] != "" || m.At != 2*time.Second {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestExpectEndsWithItsContext(t *testing.T) {
	cause := errors.New("the step's time is up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	tr := New()
	tr.Add(0, []byte("here 42"))
	cur := tr.Cursor()
	if _, err := cur.Expect(ctx, pattern(t, "there")); !errors.Is(err, cause) {
		t.Errorf("%v, want the context's cause", err)
	}
	// What is there is found all the same, and a match that might still change.
	if m, err := cur.Expect(ctx, pattern(t, `/\d+/`)); err != nil || m.Text != "42" {
		t.Errorf("%+v, %v", m, err)
	}
}
