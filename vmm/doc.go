// Package vmm turns a Config into a running virtual machine.
//
// Config is plain data; New takes everything the machine needs from the kernel
// and gives all of it back on any failure; Run drives the machine until its
// guest stops or its context ends; Close lets it go.
//
// The machine is a small, legacy-free PC: KVM's local APICs and IOAPIC, RAM with
// a hole below 4 GiB, a 16550A serial port, an MC146818 clock, an i8042 that
// answers and resets, hardware-reduced ACPI for power and reset, pvpanic. There
// is no PIC, PIT or PM timer to calibrate against: CPUID and kvmclock tell the
// frequencies, which saves a booting kernel tens of thousands of exits.
package vmm
