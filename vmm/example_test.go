package vmm_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/kvm/kvmtest"
	"github.com/huskvm/husk/vmm"
)

// Boots a kernel with an initramfs, reads its console until its first process
// runs, and presses the power button.
func Example() {
	kernel, kernelFile, err := vmm.OpenSource(os.Getenv("HUSK_KERNEL"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer kernelFile.Close()
	initrd, initrdFile, err := vmm.OpenSource(os.Getenv("HUSK_INITRD"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer initrdFile.Close()

	console, guest := io.Pipe()
	vm, err := vmm.New(vmm.Config{
		Kernel:      kernel,
		Initrds:     []boot.Source{initrd},
		CommandLine: vmm.DefaultCommandLine + " husk.do=idle", // husk's own first process waits for the button
		Memory:      256 << 20,
		CPUs:        1,
		Serial:      &vmm.Serial{Out: guest},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer vm.Close()

	go func() {
		lines := bufio.NewScanner(console)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "kernel   Linux") {
				fmt.Println("the guest is up")
				vm.PowerButton()
			}
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	result, err := vm.Run(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Outcome)
}

// TestExample runs the example where a stock kernel boots, as in the lab.
func TestExample(t *testing.T) {
	kvmtest.Need(t)
	if os.Getenv("HUSK_INITRD") == "" {
		t.Skip("needs HUSK_KERNEL, HUSK_INITRD and a KVM that boots them, as in make lab-test")
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = w
	Example()
	os.Stdout = stdout
	require.NoError(t, w.Close())
	var out bytes.Buffer
	_, err = out.ReadFrom(r)
	require.NoError(t, err)
	require.Equal(t, "the guest is up\npower-off\n", out.String())
}
