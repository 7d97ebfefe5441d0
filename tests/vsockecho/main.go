// Command vsockecho is the guest's side of the vsock tests: it echoes what comes to
// a port, or calls a port of the host and checks the echo.
//
//	vsockecho serve PORT
//	vsockecho call PORT CONNECTIONS
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vsockecho:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var numbers [2]uint32
	for i, a := range append(args, "0", "0")[1:3] {
		n, err := strconv.ParseUint(a, 10, 32)
		if err != nil {
			return err
		}
		numbers[i] = uint32(n)
	}
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(numbers[0])
	case len(args) == 3 && args[0] == "call":
		return call(numbers[0], int(numbers[1]))
	}
	return fmt.Errorf("usage: vsockecho serve PORT | vsockecho call PORT CONNECTIONS")
}

func serve(port uint32) error {
	l, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(l, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		return err
	}
	if err := unix.Listen(l, 4096); err != nil {
		return err
	}
	fmt.Println("serving")
	for {
		fd, _, err := unix.Accept(l)
		if err != nil {
			return err
		}
		go func() {
			f := os.NewFile(uintptr(fd), "vsock")
			_, _ = io.Copy(struct{ io.Writer }{f}, struct{ io.Reader }{f})
			_ = f.Close()
		}()
	}
}

// call has as many connections open at the same time, each with its own text.
func call(port uint32, connections int) error {
	var wg sync.WaitGroup
	errs := make(chan error, connections)
	for i := range connections {
		wg.Go(func() {
			if err := echo(port, i); err != nil {
				errs <- fmt.Errorf("connection %d: %w", i, err)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		return err
	}
	fmt.Println(connections, "connections")
	return nil
}

func echo(port uint32, i int) error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "vsock")
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port}); err != nil {
		return err
	}
	text := bytes.Repeat([]byte(fmt.Sprintf("connection %d\n", i)), 100)
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return err
	}
	back, err := io.ReadAll(f)
	if err == nil && !bytes.Equal(text, back) {
		err = fmt.Errorf("%d bytes came back of %d", len(back), len(text))
	}
	return err
}
