package vmmtest_test

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/vmm"
	"github.com/huskvm/husk/vmm/vmmtest"
)

// Each example is the body of a test, func TestX(t *testing.T).

// A kernel boots with two processors, says so, and is powered off.
func ExampleStart() {
	vmmtest.Need(t)
	vm := vmmtest.Start(t, vmmtest.Config{
		VMM: vmm.Config{CPUs: 2, Memory: 256 << 20},
	})
	vm.Expect(`Brought up 1 node, 2 CPUs`)
	vm.PowerOff()
}

// Without KVM the test is skipped, or fails where REQUIRE_KVM=1. Behind it there may
// be guests, here or in subtests.
func ExampleNeed() {
	vmmtest.Need(t)
	t.Log("this KVM boots stock kernels")
}

// What the parentheses match stands behind the match.
func ExampleVM_Expect() {
	vmmtest.Need(t)
	vm := vmmtest.Start(t, vmmtest.Config{})
	found := vm.Expect(`Linux version (\S+)`)
	if release := found[1]; !strings.Contains(release, ".") {
		t.Errorf("a strange release: %s", release)
	}
}

// Programs run as root, and their exit code is the test's to judge.
func ExampleVM_Run() {
	vmmtest.Need(t)
	vm := vmmtest.Start(t, vmmtest.Config{Append: "quiet"})
	out := vm.Run(t.Context(), "cat", "/proc/version")
	if out.Code != 0 || !strings.HasPrefix(out.Stdout, "Linux version") {
		t.Fatal(out)
	}
	if out = vm.Run(t.Context(), "cat", "/nowhere"); out.Code == 0 {
		t.Fatal(out)
	}
}

// A file goes in, and a folder comes out, each under the name given.
func ExampleVM_Copy() {
	vmmtest.Need(t)
	vm := vmmtest.Start(t, vmmtest.Config{Append: "quiet"})
	vm.Copy(t.Context(), "example_test.go", "/work/source.go")
	if out := vm.Run(t.Context(), "ls", "/work"); !strings.Contains(out.Stdout, "source.go") {
		t.Fatal(out)
	}
	back := t.TempDir() + "/back"
	vm.CopyOut(t.Context(), "/work", back)
	if _, err := os.Stat(back + "/source.go"); err != nil {
		t.Fatal(err)
	}
}

// A test that wants to be root is an ordinary one, which runs in a guest by
//
//	go test -exec "husk exec-test" ./...
func Example_execTest() {
	if os.Getuid() != 0 {
		t.Skip(`needs root: go test -exec "husk exec-test" .`)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
}
