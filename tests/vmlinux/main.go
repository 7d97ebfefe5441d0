// Command vmlinux takes the ELF kernel out of a bzImage, for the tests that boot
// one:
//
//	go run ./tests/vmlinux BZIMAGE VMLINUX
package main

import (
	"fmt"
	"os"

	"github.com/huskvm/husk/boot/payload"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: vmlinux BZIMAGE VMLINUX")
		os.Exit(2)
	}
	if err := extract(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "vmlinux:", err)
		os.Exit(1)
	}
}

func extract(from, to string) error {
	image, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	elf, err := payload.Unpack(image)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return os.WriteFile(to, elf, 0o644)
}
