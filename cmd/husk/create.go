package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// create opens a file for writing, as os.Create does. It does not wait for
// somebody to read a FIFO, though, but refuses one that nobody reads.
func create(path string) (*os.File, error) {
	if info, err := os.Stat(path); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		return os.Create(path)
	}
	// O_NONBLOCK needs no undoing: os.File has it on every FIFO, and its writes
	// wait for room all the same.
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%w: nobody reads this FIFO; start its reader first", err)
	}
	return f, err
}
