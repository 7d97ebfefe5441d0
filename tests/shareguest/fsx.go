package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// largest is how long the file becomes at most, in bytes.
const largest = 1 << 20

// A model is a file and what must be in it.
type model struct {
	f    *os.File
	path string
	want []byte
	rng  *rand.Rand
}

// fsx does what Apple's and SGI's program of that name does: random operations on a file,
// one after the other, each checked against a copy in memory. So it finds what caches
// on the way to the file do wrong.
func fsx(dir string, seed uint64, n int) error {
	m := &model{path: filepath.Join(dir, fmt.Sprintf("fsx-%d", seed)), rng: rand.New(rand.NewPCG(seed, 1))}
	var err error
	if m.f, err = os.OpenFile(m.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
		return err
	}
	operations := []struct {
		name string
		do   func(off, n int) error
	}{
		{"read", m.read},
		{"read", m.read},
		{"write", m.write},
		{"write", m.write},
		{"append", m.append},
		{"map and read", m.mapRead},
		{"map and write", m.mapWrite},
		{"truncate", m.truncate},
		{"punch a hole", m.punch},
		{"copy", m.copy},
		{"reopen", m.reopen},
		{"sync", func(int, int) error { return m.f.Sync() }},
	}
	for i := range n {
		op := operations[m.rng.IntN(len(operations))]
		off := m.rng.IntN(largest)
		length := 1 + m.rng.IntN(min(largest-off, 1<<(4+m.rng.IntN(14))))
		err := op.do(off, length)
		if err == nil {
			err = m.checkSize()
		}
		if err != nil {
			return fmt.Errorf("seed %d, operation %d, %s %#x+%#x of %#x: %w", seed, i, op.name, off, length, len(m.want), err)
		}
	}
	if err := m.f.Close(); err != nil {
		return err
	}
	got, err := os.ReadFile(m.path)
	if err != nil {
		return err
	}
	return m.same(got, 0, len(m.want))
}

func (m *model) checkSize() error {
	info, err := m.f.Stat()
	if err == nil && info.Size() != int64(len(m.want)) {
		err = fmt.Errorf("it has %#x bytes, not %#x", info.Size(), len(m.want))
	}
	return err
}

func (m *model) same(got []byte, off, n int) error {
	want := m.want[min(off, len(m.want)):min(off+n, len(m.want))]
	if bytes.Equal(got, want) {
		return nil
	}
	if len(got) != len(want) {
		return fmt.Errorf("%#x bytes, not %#x", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("at %#x there is %#x, not %#x", off+i, got[i], want[i])
		}
	}
	return nil
}

func (m *model) data(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	return b
}

func (m *model) grow(n int) {
	if n > len(m.want) {
		m.want = append(m.want, make([]byte, n-len(m.want))...)
	}
}

func (m *model) read(off, n int) error {
	b := make([]byte, n)
	got, _ := m.f.ReadAt(b, int64(off)) // shorter at the end
	return m.same(b[:got], off, n)
}

func (m *model) write(off, n int) error {
	b := m.data(n)
	if _, err := m.f.WriteAt(b, int64(off)); err != nil {
		return err
	}
	m.grow(off + n)
	copy(m.want[off:], b)
	return nil
}

func (m *model) append(_, n int) error {
	if len(m.want)+n > largest {
		return nil
	}
	f, err := os.OpenFile(m.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	b := m.data(n)
	m.want = append(m.want, b...)
	if _, err = f.Write(b); err != nil {
		return err
	}
	return f.Close()
}

func (m *model) truncate(off, _ int) error {
	if err := m.f.Truncate(int64(off)); err != nil {
		return err
	}
	m.grow(off)
	m.want = m.want[:off]
	return nil
}

func (m *model) punch(off, n int) error {
	if err := unix.Fallocate(int(m.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n)); err != nil {
		return err
	}
	if off < len(m.want) {
		clear(m.want[off:min(off+n, len(m.want))])
	}
	return nil
}

func (m *model) copy(off, n int) error {
	to := m.rng.IntN(largest)
	if n = min(n, len(m.want)-off, largest-to); n <= 0 || off < to+n && to < off+n {
		return nil
	}
	from, dest := int64(off), int64(to)
	for left := n; left > 0; {
		done, err := unix.CopyFileRange(int(m.f.Fd()), &from, int(m.f.Fd()), &dest, left, 0)
		if err != nil {
			return err
		}
		if done == 0 {
			return fmt.Errorf("nothing was copied, with %#x bytes left", left)
		}
		left -= done
	}
	m.grow(to + n)
	copy(m.want[to:], m.want[off:off+n])
	return nil
}

// mapped calls f with the file's pages from off on, as far as it has some.
func (m *model) mapped(off, n int, f func(b []byte, off int) error) error {
	off, n = min(off, len(m.want)), min(n, len(m.want)-off)
	if n <= 0 {
		return nil
	}
	page := off &^ (os.Getpagesize() - 1)
	b, err := unix.Mmap(int(m.f.Fd()), int64(page), off+n-page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	if err := f(b[off-page:], off); err != nil {
		return err
	}
	return unix.Munmap(b)
}

func (m *model) mapRead(off, n int) error {
	return m.mapped(off, n, func(b []byte, off int) error { return m.same(b, off, len(b)) })
}

func (m *model) mapWrite(off, n int) error {
	return m.mapped(off, n, func(b []byte, off int) error {
		copy(b, m.data(len(b)))
		copy(m.want[off:], b)
		return nil
	})
}

func (m *model) reopen(int, int) (err error) {
	if err = m.f.Close(); err == nil {
		m.f, err = os.OpenFile(m.path, os.O_RDWR, 0)
	}
	return err
}
