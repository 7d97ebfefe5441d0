package console

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLines(t *testing.T) {
	tr := New()
	var watched []Line
	tr.Watch(func(l Line) { watched = append(watched, l) })
	tr.Add(1*time.Second, []byte("SeaBIOS\r\n[    0.000000] Linux"))
	tr.Add(2*time.Second, []byte(" version 6.1\r\n\r\n"))
	tr.Add(3*time.Second, []byte("\x1b[1mhost login: \x1b[0m"))
	tr.Add(2*time.Second, []byte("r")) // a clock that goes back is not believed
	want := []Line{
		{Start: 1 * time.Second, End: 1 * time.Second, Kernel: -1, Text: "SeaBIOS"},
		{Start: 1 * time.Second, End: 2 * time.Second, Kernel: 0, Text: "Linux version 6.1"},
		{Start: 2 * time.Second, End: 2 * time.Second, Kernel: -1, Text: ""},
		{Start: 3 * time.Second, End: 3 * time.Second, Kernel: -1, Text: "host login: r"},
	}
	if got := tr.Lines(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if !reflect.DeepEqual(watched, want[:3]) {
		t.Errorf("watched %+v", watched)
	}
	tr.Close()
	tr.Close()
	tr.Add(9*time.Second, []byte("late\n"))
	if !reflect.DeepEqual(watched, want) || !reflect.DeepEqual(tr.Lines(), want) {
		t.Errorf("closed: watched %+v, %+v", watched, tr.Lines())
	}
}

func TestRaw(t *testing.T) {
	tr := New()
	in := "a\x1b[1m\r\r\nb\x00\xff"
	tr.Add(0, []byte(in))
	if got := string(tr.Raw()); got != in {
		t.Errorf("%q", got)
	}
}

// TestTee has a guest print more than is kept.
func TestTee(t *testing.T) {
	var all, want bytes.Buffer
	tr := New()
	tr.raw = kept{headMax: 1000, tailMax: 1000}
	tr.Tee(&all)
	for i := range 100 {
		p := bytes.Repeat(fmt.Appendf(nil, "%07d\r\n", i), 10)
		tr.Add(time.Duration(i), p)
		want.Write(p)
	}
	tr.Close()
	tr.Add(time.Hour, []byte("late"))
	if !bytes.Equal(all.Bytes(), want.Bytes()) || tr.Err() != nil {
		t.Errorf("%d bytes of %d, %v", all.Len(), want.Len(), tr.Err())
	}
}

// full is a disk that has room for so many writes.
type full int

var errFull = errors.New("no space left on device")

func (f *full) Write(p []byte) (int, error) {
	if *f--; *f < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestTeeFails(t *testing.T) {
	disk := full(1)
	tr := New()
	tr.Tee(&disk)
	for range 3 {
		tr.Add(0, []byte("x\n"))
	}
	tr.Close()
	if !errors.Is(tr.Err(), errFull) || disk != -1 || len(tr.Lines()) != 3 {
		t.Errorf("%v, %d, %d lines", tr.Err(), disk, len(tr.Lines()))
	}
}

// TestBounds has a guest print much more than is kept: here that is less.
func TestBounds(t *testing.T) {
	const head, tail, count = 4 << 10, 12 << 10, 2000
	tr := New()
	tr.raw = kept{headMax: head, tailMax: tail}
	tr.lines = lineList{headMax: head, tailMax: tail}
	tr.window.max = tail
	lines := 0
	tr.Watch(func(Line) { lines++ })
	cursor := tr.Cursor()
	for i := range count / 10 {
		tr.Add(time.Duration(i)*time.Second, bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 10))
	}
	tr.Add(time.Hour, []byte("the end\n"))
	raw := tr.Raw()
	marker := fmt.Sprintf("\n… %d bytes left out …\n", 100*count+8-head-tail)
	if len(raw) != head+tail+len(marker) || !bytes.Contains(raw, []byte(marker)) || !bytes.HasSuffix(raw, []byte("x\nthe end\n")) {
		t.Errorf("%d bytes, want %d", len(raw), head+tail+len(marker))
	}
	all := tr.Lines()
	if lines != count+1 || len(all) > (head+tail)/(99+lineCost)+2 || all[len(all)-1].Text != "the end" {
		t.Errorf("watched %d lines, kept %d", lines, len(all))
	}
	if i := head / (99 + lineCost); all[i].Text != fmt.Sprintf("… %d lines left out …", count+1-len(all)+1) {
		t.Errorf("%+v", all[i])
	}
	if n, m := len(tr.window.text), len(tr.window.times); n > 2*tail || m > 2*tail/1000+2 {
		t.Errorf("window of %d bytes, %d moments", n, m)
	}
	// One who comes late still finds the end, and when it came.
	if m, err := cursor.Expect(t.Context(), pattern(t, "the end")); err != nil || m.Start != 100*count || m.At != time.Hour {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestLongLine(t *testing.T) {
	tr := New()
	text := strings.Repeat("ä", maxLine) + "\n"
	tr.Add(0, []byte(text))
	var all string
	for _, l := range tr.Lines() {
		if len(l.Text) > maxLine || strings.Contains(l.Text, "\ufffd") || strings.ToValidUTF8(l.Text, "?") != l.Text {
			t.Errorf("a line of %d bytes", len(l.Text))
		}
		all += l.Text
	}
	if all+"\n" != text {
		t.Error("text was lost")
	}
}

func TestWatchFor(t *testing.T) {
	for _, c := range []struct {
		name, text, pattern, want string
		at                        int // how many bytes have come when it is told; -1 for Close
	}{
		{"in a prompt", "bad prompt: ", "bad", "bad", 3},
		{"over lines", "a\r\nb", "a\nb", "a\nb", 4},
		{"at the line's end", "7777 x\n", `/7+/`, "7777", 5},
		{"at Close", "7777", `/7+/`, "7777", -1},
		{"once", "bad bad", "bad", "bad", 3},
		{"not", "good", "bad", "", 0},
	} {
		tr := New()
		var got []string
		n, at := 0, 0
		tr.WatchFor(pattern(t, c.pattern), func(m Match) { got, at = append(got, m.Text), n })
		for i := range len(c.text) {
			n++
			tr.Add(0, []byte{c.text[i]})
		}
		n = -1
		tr.Close()
		if strings.Join(got, ",") != c.want || at != c.at {
			t.Errorf("%s: %q at %d, want %q at %d", c.name, got, at, c.want, c.at)
		}
	}
}

// FuzzConsole gives a transcript what comes in three pieces, cut anywhere: its lines
// and matches are those of the whole.
func FuzzConsole(f *testing.F) {
	for i, c := range plainTests {
		f.Add([]byte(c.in+"\r\n[    1.000000] BUG: x\nlogin: "), uint16(i), uint16(2*i))
	}
	f.Fuzz(func(t *testing.T, text []byte, a, b uint16) {
		i, j := min(int(a), len(text)), min(int(b), len(text))
		i, j = min(i, j), max(i, j)
		run := func(pieces ...[]byte) (lines []Line, matches []string, raw string) {
			tr := New()
			for _, p := range []string{"login: ", `/^\w+$/`, `/\bx.*?y/s`, "/[0-9]+/", `/(a|ab)(c|bcd)*/`} {
				tr.WatchFor(pattern(t, p), func(m Match) {
					matches = append(matches, fmt.Sprintf("%s: %d-%d %q %q", p, m.Start, m.End, m.Text, m.Groups))
				})
			}
			for _, p := range pieces {
				tr.Add(time.Second, p)
			}
			tr.Close()
			return tr.Lines(), matches, string(tr.Raw())
		}
		lines, matches, raw := run(text)
		cutLines, cutMatches, cutRaw := run(text[:i], text[i:j], text[j:])
		slices.Sort(matches)
		slices.Sort(cutMatches)
		if !reflect.DeepEqual(lines, cutLines) || !reflect.DeepEqual(matches, cutMatches) || raw != cutRaw || raw != string(text) {
			t.Errorf("%q cut at %d and %d:\n%+v\n%+v\n%q\n%q", text, i, j, lines, cutLines, matches, cutMatches)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{1, 4096} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			tr := New()
			tr.WatchFor(pattern(b, `/never [a-z]+ this$/`), func(Match) {})
			p := bytes.Repeat([]byte("[    0.123456] n ACPI: Reserving FACP table memory at [mem 0xe0950-0xe0a63]\r\n"), 60)[:size]
			b.SetBytes(int64(size))
			for b.Loop() {
				tr.Add(0, p)
			}
		})
	}
}
