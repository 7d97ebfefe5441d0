package boot

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/kstack"
	"github.com/huskvm/husk/internal/ksym"
	"github.com/huskvm/husk/vmm"
)

// A looked is a guest that is looked into.
type looked struct {
	vm      *vmm.VM
	console watched
	kernel  *kstack.Kernel
}

// lookInto boots a kernel in this process, and knows its symbols by the kernel's file.
func lookInto(t *testing.T, image, initrd, args string) *looked {
	t.Helper()
	need(t)
	g := &looked{}
	var err error
	g.kernel, err = kstack.OpenFiles(image)
	require.NoError(t, err)
	cfg := vmm.Config{
		CommandLine: "console=ttyS0 quiet panic=0 " + args,
		Memory:      256 << 20, CPUs: 2, Serial: &vmm.Serial{Out: &g.console},
	}
	files := []string{image}
	if initrd != "" {
		files = append(files, initrd)
	}
	for i, path := range files {
		source, file, err := vmm.OpenSource(path)
		require.NoError(t, err)
		defer file.Close()
		if i == 0 {
			cfg.Kernel = source
		} else {
			cfg.Initrds = append(cfg.Initrds, source)
		}
	}
	g.vm, err = vmm.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if _, err := g.vm.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		require.NoError(t, g.vm.Close())
	})
	return g
}

// places pauses the machine and tells where its processors are.
func (g *looked) places(t *testing.T) ([]vmm.Dump, []kstack.Place) {
	t.Helper()
	require.NoError(t, g.vm.Pause())
	dumps, err := g.vm.Dumps(t.Context())
	require.NoError(t, err)
	places, err := g.kernel.Describe(dumps, g.vm)
	require.NoError(t, err)
	require.NoError(t, g.vm.Resume())
	return dumps, places
}

// until looks until a processor is where it should be: kernels have other things to do
// now and then.
func (g *looked) until(t *testing.T, f func(vmm.Dump, kstack.Place) bool) (vmm.Dump, kstack.Place) {
	t.Helper()
	var dumps []vmm.Dump
	var places []kstack.Place
	for range 50 {
		dumps, places = g.places(t)
		for i := range dumps {
			if f(dumps[i], places[i]) {
				return dumps[i], places[i]
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
	require.Fail(t, "no processor is there", "%v\n%v\n%s", dumps, places, &g.console)
	return vmm.Dump{}, kstack.Place{}
}

func (g *looked) waitFor(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(g.console.String(), text) }, deadline, 50*time.Millisecond, "%s", &g.console)
}

func TestWhereProcessorsAre(t *testing.T) {
	for _, kaslr := range []string{"", "nokaslr"} {
		t.Run("idle "+kaslr, func(t *testing.T) {
			t.Parallel()
			g := lookInto(t, kernel(t, "cloud", "vmlinuz"), initrd(t, "cloud"), "husk.do=idle "+kaslr)
			g.waitFor(t, sees)
			d, p := g.until(t, func(d vmm.Dump, _ kstack.Place) bool { return d.State == vmm.CPUHalted })
			t.Logf("LSTAR %#x\n%s\n%s", d.LSTAR, p.Symbol, strings.Join(p.Backtrace, "\n"))
			require.Zero(t, d.CPL)
			require.Regexp(t, `(halt|idle)\+0x`, p.Symbol)
			require.Regexp(t, `(?s)idle\+0x.*\ndo_idle\+0x.*\ncpu_startup_entry\+0x.*\nsecondary_startup_64_no_verify\+0x\S+$`, strings.Join(p.Backtrace, "\n"))
		})
		t.Run("spin "+kaslr, func(t *testing.T) {
			t.Parallel()
			g := lookInto(t, kernel(t, "cloud", "vmlinuz"), initrd(t, "cloud"), "husk.do=spin "+kaslr)
			g.waitFor(t, sees)
			_, p := g.until(t, func(d vmm.Dump, _ kstack.Place) bool { return d.CPL == 3 })
			require.Equal(t, kstack.Place{Symbol: kstack.UserMode}, p)
		})
	}
}

// TestWhereAKernelDied: it spins in panic, with no root file system.
func TestWhereAKernelDied(t *testing.T) {
	t.Parallel()
	g := lookInto(t, kernel(t, "cloud", "vmlinuz"), "", "")
	g.waitFor(t, "end Kernel panic")
	_, p := g.until(t, func(_ vmm.Dump, p kstack.Place) bool {
		return strings.Contains(strings.Join(p.Backtrace, "\n"), "panic+0x")
	})
	t.Logf("%s\n%s", p.Symbol, strings.Join(p.Backtrace, "\n"))
	require.Regexp(t, `(?s)panic\+0x.*mount_block_root\+0x.*kernel_init\+0x.*ret_from_fork\+0x`, strings.Join(p.Backtrace, "\n"))
	require.NotContains(t, p.Backtrace, "? ")
}

// TestSymbolsAreWhatTheKernelSays compares those that are found in the file of the
// kernel that runs here, if it is one of ours as in the lab, with its /proc/kallsyms.
func TestSymbolsAreWhatTheKernelSays(t *testing.T) {
	need(t)
	image := kernel(t, "generic", "vmlinux")
	file, err := os.ReadFile(image)
	require.NoError(t, err)
	version, err := os.ReadFile("/proc/version")
	require.NoError(t, err)
	if !bytes.Contains(file, version) {
		t.Skip("this is another kernel than", image)
	}
	said, err := os.Open("/proc/kallsyms")
	require.NoError(t, err)
	defer said.Close()
	want, err := ksym.ParseSystemMap(said)
	require.NoError(t, err)
	m, err := ksym.OpenImage(bytes.NewReader(file))
	require.NoError(t, err)
	got, err := m.Symbols()
	require.NoError(t, err)
	all, slide := got.All(), want.All()[0].Addr-got.All()[0].Addr
	require.Len(t, want.All(), len(all))
	for i, w := range want.All() {
		w.Addr -= slide
		if all[i] != w {
			t.Fatalf("%d: %v, not %v", i, all[i], w)
		}
	}
	t.Logf("%d symbols, moved by %#x", len(all), slide)
}
