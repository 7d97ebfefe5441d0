// Package vmmtest boots kernels in Go tests.
//
//	func TestMount(t *testing.T) {
//		vmmtest.Need(t) // skips where KVM boots no kernel
//		vm := vmmtest.Start(t, vmmtest.Config{Load: []string{"loop"}})
//		vm.Copy(t.Context(), "testdata/image.ext4", "/image")
//		if out := vm.Run(t.Context(), "ls", "/sys/block/loop0"); out.Code != 0 {
//			t.Fatal(out)
//		}
//	}
//
// A guest is a machine of package vmm with a kernel, and, unless the test brings an
// initramfs of its own, husk's first process, which runs commands: programs that were
// copied in, and a few of its own (cat, dmesg, insmod, ls, mount, panic, poweroff, ps,
// reboot, sh, uname, …). It ends with its test. When the test fails, its log has the
// guest's console; when the kernel panics, whatever waited for the guest fails at once,
// with the trace.
//
// # Where tests run
//
// Guests need a KVM that boots stock kernels, and /dev/kvm open to the user. Need skips
// a test where that is missing, or fails it if the environment has REQUIRE_KVM=1.
// Elsewhere, "husk lab" brings a KVM along, on QEMU's software CPU:
//
//	go test -exec "husk lab --" ./...
//
// The kernel is the newest in /boot, or what HUSK_KERNEL names.
//
// # husk's own process
//
// The first process, husk-init, is built into husk by make. A program that imports
// this package as a module has it not: then a test has the go command build it, once,
// or takes what HUSK_INIT names.
//
// # Tests that run inside
//
// The other way round, a package's own tests run in a guest, as root, with
//
//	go test -exec "husk exec-test" ./...
//
// See docs/ci.md for recipes, and "husk help exec-test".
package vmmtest
