package boot

import (
	"fmt"
	"io"
)

// enterLinux writes what both of Linux's own protocols share, after the kernel
// itself is in memory: the initramfs, the command line, the zero page, the GDT
// and, for long mode, page tables.
func (l layout) enterLinux(mem io.WriterAt, m Machine, mode Mode, zero *zeroPage, rip uint64) (Entry, error) {
	if err := l.writeCommon(mem, m, mode, zero[:]); err != nil {
		return Entry{}, err
	}
	e := Entry{Mode: mode, RIP: rip, RSI: l.info, GDT: l.gdt}
	if mode == Long64 {
		if err := write(mem, l.tables, pageTables(l.tables), "the page tables"); err != nil {
			return Entry{}, err
		}
		e.CR3 = l.tables
	}
	return e, nil
}

// writeCommon writes what every protocol has; info is its own structure.
func (l layout) writeCommon(mem io.WriterAt, m Machine, mode Mode, info []byte) error {
	if err := m.writeInitrds(mem, l.initrd.start); err != nil {
		return err
	}
	if err := write(mem, l.cmdline, append([]byte(m.CommandLine), 0), "the command line"); err != nil {
		return err
	}
	if err := write(mem, l.info, info, "the boot parameters"); err != nil {
		return err
	}
	return write(mem, l.gdt, gdt(mode), "the GDT")
}

// write puts p into guest memory at gpa.
func write(mem io.WriterAt, gpa uint64, p []byte, what string) error {
	if _, err := mem.WriteAt(p, int64(gpa)); err != nil {
		return fmt.Errorf("writing %s to guest memory at %#x: %w", what, gpa, err)
	}
	return nil
}
