package process

import (
	"bytes"
	"os"
	"strings"
	"sync"
)

// A console is where what the guest's kernel says goes: a file for people. Its size is
// bounded, as the guest may write there as it likes.
type console struct {
	mu   sync.Mutex
	f    *os.File
	size int
	last []byte // what was written last
	oom  bool
}

const (
	maxConsole = 1 << 20 // bytes of a file; there are two at most
	maxLast    = 4096    // bytes that are remembered
)

func newConsole(path string) (*console, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &console{f: f}, nil
}

// oomMark is what Linux says when it kills a process for want of memory
// (__oom_kill_process in mm/oom_kill.c).
var oomMark = []byte("ut of memory: Killed process")

// Write adds to the file. A full disk is no reason to fail.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size+len(p) > maxConsole {
		_ = os.Rename(c.f.Name(), c.f.Name()+".old")
		if f, err := os.OpenFile(c.f.Name(), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600); err == nil {
			_ = c.f.Close()
			c.f = f
		}
		c.size = 0
	}
	n, _ := c.f.Write(p)
	c.size += n
	c.last = append(c.last, p...)
	c.oom = c.oom || bytes.Contains(c.last, oomMark)
	if len(c.last) > maxLast {
		c.last = append(c.last[:0], c.last[len(c.last)-maxLast:]...)
	}
	return len(p), nil
}

func (c *console) outOfMemory() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.oom
}

// tail is the last of what the kernel has said, to go behind a message; or otherwise, where
// it has said nothing.
func (c *console) tail(otherwise string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(c.last)), "\n")
	const most = 5
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	text := strings.Join(lines, "\n")
	if text == "" {
		text = otherwise
	}
	if text == "" {
		return ""
	}
	return ": " + strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

func (c *console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.f.Close()
}
