package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// spareSize is how much of the disk is read, in bytes, at most.
const spareSize = 1 << 20

// A spare is a disk that is not attacked. It is read past the page cache.
type spare struct {
	name string
	file *os.File
	buf  []byte
	want [sha256.Size]byte
}

// openSpare remembers what is on the disk. There need not be one.
func openSpare(name string) (*spare, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, fmt.Errorf("the disk to spare: %w", err)
	}
	buf, err := unix.Mmap(-1, 0, spareSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	s := &spare{name: name, file: f, buf: buf}
	s.want, err = s.sum()
	return s, err
}

func (s *spare) sum() ([sha256.Size]byte, error) {
	n, err := s.file.ReadAt(s.buf, 0)
	if n == 0 && err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("the disk to spare: %w", err)
	}
	return sha256.Sum256(s.buf[:n]), nil
}

// check reads the disk.
func (s *spare) check() error {
	if s == nil {
		return nil
	}
	got, err := s.sum()
	if err == nil && !bytes.Equal(got[:], s.want[:]) {
		err = errors.New(s.name + " reads wrong")
	}
	return err
}

// readUntil reads the disk until stop is closed, and tells how often it did.
func (s *spare) readUntil(stop <-chan struct{}) (n uint64, err error) {
	for s != nil && err == nil {
		select {
		case <-stop:
			return n, nil
		default:
		}
		err = s.check()
		n++
	}
	return n, err
}
