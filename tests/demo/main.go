// Command demo packs the initramfs of make demo: husk-init, with the modules
// that tell of a panic and of the power button.
//
//	go run ./tests/demo KERNEL-FOLDER INITRAMFS
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/huskvm/husk/boot/modules"
	"github.com/huskvm/husk/internal/guestinit"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: demo KERNEL-FOLDER INITRAMFS")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func pack(folder, to string) error {
	trees, err := filepath.Glob(filepath.Join(folder, "lib/modules/*"))
	if err != nil {
		return err
	}
	if len(trees) != 1 {
		return fmt.Errorf("%s: %d module trees in lib/modules where one is wanted; remove the folder and run make again", folder, len(trees))
	}
	tree, err := modules.Open(trees[0])
	if err != nil {
		return err
	}
	list, err := tree.Resolve("pvpanic_mmio", "button", "evdev")
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := guestinit.Initramfs(&b, guestinit.Options{Modules: list}); err != nil {
		return err
	}
	return os.WriteFile(to, b.Bytes(), 0o644)
}
