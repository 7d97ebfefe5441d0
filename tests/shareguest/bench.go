package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// benchSize is how long the file is that figures are taken on, in bytes.
const benchSize = 64 << 20

// bench prints one figure a line: name, value, unit.
func bench(dir string) error {
	path := filepath.Join(dir, "bench")
	defer os.Remove(path)
	block := make([]byte, 1<<20)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	start := time.Now()
	for off := int64(0); off < benchSize; off += int64(len(block)) {
		if _, err := f.WriteAt(block, off); err != nil {
			return err
		}
	}
	rate("sequential-write", start)
	drop(f)
	start = time.Now()
	for off := int64(0); off < benchSize; off += int64(len(block)) {
		if _, err := f.ReadAt(block, off); err != nil {
			return err
		}
	}
	rate("sequential-read", start)
	const n = 2000
	page := make([]byte, 4096)
	for name, do := range map[string]func(off int64) error{
		"random-read":  func(off int64) error { _, err := f.ReadAt(page, off); return err },
		"random-write": func(off int64) error { _, err := f.WriteAt(page, off); return err },
	} {
		drop(f)
		start = time.Now()
		for range n {
			if err := do(rand.Int64N(benchSize/4096) * 4096); err != nil {
				return err
			}
		}
		fmt.Printf("%s-4k %.0f IOPS\n", name, n/time.Since(start).Seconds())
	}
	return names(dir)
}

// drop empties the guest's page cache of a file.
func drop(f *os.File) {
	_ = unix.Fdatasync(int(f.Fd()))
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func rate(name string, start time.Time) {
	fmt.Printf("%s %.1f MB/s\n", name, benchSize/1e6/time.Since(start).Seconds())
}

// names takes figures of what is done to names.
func names(dir string) error {
	const files = 500
	deep := filepath.Join(dir, "a", "b", "c")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Join(dir, "a"))
	var st unix.Stat_t
	list := make([]string, files)
	for i := range list {
		list[i] = filepath.Join(deep, fmt.Sprint(i))
	}
	for _, what := range []struct {
		name string
		do   func(path string) error
	}{
		{"create", func(path string) error { return os.WriteFile(path, []byte("hello"), 0o644) }},
		{"stat", func(path string) error { return unix.Stat(path, &st) }},
		{"stat-again", func(path string) error { return unix.Stat(path, &st) }},
		{"read-file", func(path string) error { _, err := os.ReadFile(path); return err }},
		{"list-and-stat", nil},
		{"remove", os.Remove},
	} {
		start := time.Now()
		if what.do == nil {
			entries, err := os.ReadDir(deep)
			if err != nil || len(entries) != files {
				return fmt.Errorf("%d files: %w", len(entries), err)
			}
			for _, e := range entries {
				if _, err := e.Info(); err != nil {
					return err
				}
			}
		} else {
			for _, path := range list {
				if err := what.do(path); err != nil {
					return err
				}
			}
		}
		fmt.Printf("%s %.0f us/file\n", what.name, float64(time.Since(start).Microseconds())/files)
	}
	return nil
}
