package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// These are the shell's commands that make trouble, for tests of what husk makes of it.

// insmod loads a kernel module from a file. What its first function does, the kernel
// does in a thread of this process. One that it ends by an Oops takes no other
// thread with it, so another looks whether it is there.
func insmod(_ *shell, args []string) error {
	if len(args) == 0 {
		return errors.New("want a file and its parameters")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	thread, done := make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		done <- os.NewSyscallError("finit_module", unix.FinitModule(int(f.Fd()), strings.Join(args[1:], " "), 0))
	}()
	tid := <-thread
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Millisecond):
			if !alive(tid) {
				return errors.New("the kernel ended the thread that loaded it")
			}
		}
	}
}

// alive tells whether a thread of this process is there, and has not ended.
func alive(tid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
	if err != nil {
		return false
	}
	_, state, ok := strings.Cut(string(stat), ") ")
	return ok && state[0] != 'Z' && state[0] != 'X'
}

// write writes words to a file that is there: one of the kernel's, mostly.
func write(_ *shell, args []string) error {
	if len(args) == 0 {
		return errors.New("want a file and words")
	}
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, strings.Join(args[1:], " "))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// lineWidth is how long the lines are that lines prints, in bytes, with their end.
const lineWidth = 80

// lines prints numbered lines, the last of which says so.
func lines(sh *shell, args []string) error {
	if len(args) != 1 {
		return errors.New("want a number")
	}
	count, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return fmt.Errorf("%s: not a number of lines", args[0])
	}
	w := bufio.NewWriterSize(sh.out, 64<<10)
	for i := range count {
		text := fmt.Sprintf("line %d of %d ", i+1, count)
		fmt.Fprintln(w, text+strings.Repeat(".", max(0, lineWidth-1-len(text))))
	}
	fmt.Fprintf(w, "the last of %d lines\n", count)
	return w.Flush()
}

// oomStep is how much memory oom takes at a time, in bytes.
const oomStep = 8 << 20

// oom takes memory until the kernel ends this process, or the guest.
func oom(_ *shell, _ []string) error {
	// This process and no other: the most likely one is not always the largest.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return err
	}
	for {
		b, err := unix.Mmap(-1, 0, oomStep, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil {
			return os.NewSyscallError("mmap", err)
		}
		b[0] = 1
	}
}
