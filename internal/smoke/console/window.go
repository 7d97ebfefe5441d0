package console

import (
	"sort"
	"time"
)

// A window is the last of the text, for those who wait for something in it, and
// when it came. Positions count from the console's first byte of text.
type window struct {
	max   int
	text  []byte
	first int64 // the position of text[0]
	times []moment
}

// A moment says when the text up to a position was there.
type moment struct {
	end int64
	at  time.Duration
}

// grain is the time within which text is taken to have come at once: a console that
// comes byte by byte must not cost a moment each.
const grain = 100 * time.Microsecond

func (w *window) end() int64 { return w.first + int64(len(w.text)) }

func (w *window) add(at time.Duration, text []byte) {
	if len(text) == 0 {
		return
	}
	w.text = append(w.text, text...)
	// A window of twice the size is cut in half: so each byte is moved once.
	if over := len(w.text) - w.max; over > w.max {
		w.text = append(w.text[:0], w.text[over:]...)
		w.first += int64(over)
		i := sort.Search(len(w.times), func(i int) bool { return w.times[i].end > w.first })
		w.times = append(w.times[:0], w.times[i:]...)
	}
	if n := len(w.times); n > 0 && at-w.times[n-1].at < grain {
		w.times[n-1].end = w.end()
		return
	}
	w.times = append(w.times, moment{end: w.end(), at: at})
}

// from is a copy of the text behind pos, at most n bytes of it, and where it
// begins: further on where the window has moved past pos.
func (w *window) from(pos int64, n int) ([]byte, int64) {
	pos = max(pos, w.first)
	text := w.text[pos-w.first:]
	return append([]byte(nil), text[:min(n, len(text))]...), pos
}

// span is the text from one position to another, as far as it is still there.
func (w *window) span(from, to int64) string {
	from, to = min(max(from, w.first), w.end()), min(max(to, w.first), w.end())
	if from >= to {
		return ""
	}
	return string(w.text[from-w.first : to-w.first])
}

// when says when the text up to pos was there.
func (w *window) when(pos int64) time.Duration {
	i := sort.Search(len(w.times), func(i int) bool { return w.times[i].end >= pos })
	if i == len(w.times) {
		if i == 0 {
			return 0
		}
		i--
	}
	return w.times[i].at
}
