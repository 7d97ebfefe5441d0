package vmm

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/netdev"
)

func TestParseMemory(t *testing.T) {
	for s, want := range map[string]uint64{
		"512M": 512 * mib, "512m": 512 * mib, "512MiB": 512 * mib, "5G": 5 * gib, "1024": gib,
		"65536K": 64 * mib, "1T": 1024 * gib, "128MB": 128 * mib,
	} {
		got, err := ParseMemory(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "M", "12X", "-1", "1.5G", "99999999999T", "512 M", "0x10", "M512", "5GG", "1iB"} {
		_, err := ParseMemory(s)
		require.ErrorIs(t, err, ErrConfig, s)
		require.ErrorContains(t, err, "write it as")
	}
}

func TestParseCPU(t *testing.T) {
	for s, want := range map[string]CPU{
		"host":                   {Model: "host"},
		"host,+avx2,-x2apic":     {Model: "host", Add: []string{"avx2"}, Remove: []string{"x2apic"}},
		"max-migratable":         {Model: "max-migratable"},
		"-x2apic":                {Remove: []string{"x2apic"}},
		"max-migratable,+invtsc": {Model: "max-migratable", Add: []string{"invtsc"}},
	} {
		got, err := ParseCPU(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for _, s := range []string{"", "Haswell", "host,avx2", "host,+nosuch", "host,", "+avx2,-avx2"} {
		_, err := ParseCPU(s)
		require.ErrorIs(t, err, ErrConfig, s)
	}
}

func TestParseShare(t *testing.T) {
	for s, want := range map[string]Share{
		"work=/home/me":                  {Tag: "work", Path: "/home/me"},
		"w=.,ro":                         {Tag: "w", Path: ".", ReadOnly: true},
		"w=/a,,b=c,cache=1.5s,ro":        {Tag: "w", Path: "/a,b=c", ReadOnly: true, CacheTime: 1500 * time.Millisecond},
		"a tag=/with spaces,,,,,cache=0": {Tag: "a tag", Path: "/with spaces,,"},
	} {
		got, err := ParseShare(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
		again, err := ParseShare(got.String())
		require.NoError(t, err, got.String())
		require.Equal(t, want, again)
	}
	for s, want := range map[string]string{
		"/home": "TAG=PATH", "": "TAG=PATH", "=/x": "a tag is needed", "t=": "name a folder", "t=,ro": "name a folder",
		"t=/x,rw": "neither ro nor cache", "t=/x,cache=soon": "is not a time", "t=/x,cache=-1s": "is not a time",
		"t=/x\x00": "zero byte", strings.Repeat("t", 37) + "=/x": "it may have 36", "t=/x,,ro,": "neither",
	} {
		_, err := ParseShare(s)
		require.ErrorIs(t, err, ErrConfig, s)
		require.ErrorContains(t, err, want, s)
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	good := config(t, forever)
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*Config){
		"a tag is needed":          func(c *Config) { c.Shares = []Share{{Path: "."}} },
		"it may have 36":           func(c *Config) { c.Shares = []Share{{Tag: strings.Repeat("t", 37), Path: "."}} },
		"shares 1 and 2 both have": func(c *Config) { c.Shares = []Share{{Tag: "t", Path: "."}, {Tag: "t", Path: ".."}} },
		"share t: no path":         func(c *Config) { c.Shares = []Share{{Tag: "t"}} },
		"none: no such file":       func(c *Config) { c.Shares = []Share{{Tag: "t", Path: "./none"}} },
		"neither a folder":         func(c *Config) { c.Shares = []Share{{Tag: "t", Path: "/dev/null"}} },
		"a cache time of -1s":      func(c *Config) { c.Shares = []Share{{Tag: "t", Path: ".", CacheTime: -1e9}} },
		"no kernel":                func(c *Config) { c.Kernel = boot.Source{} },
		"nothing to read":          func(c *Config) { c.Initrds = []boot.Source{{Name: "x"}} },
		"at least 16 MiB":          func(c *Config) { c.Memory = 8 * mib },
		"at most 8388608 MiB":      func(c *Config) { c.Memory = MaxMemory + 2*mib },
		"use 18 MiB":               func(c *Config) { c.Memory = 17 * mib },
		"65 processors; give 1 to": func(c *Config) { c.CPUs = 65 },
		"-1 processors":            func(c *Config) { c.CPUs = -1 },
		"backing \"disk\"":         func(c *Config) { c.Backing = "disk" },
		"\"i386\" is unknown":      func(c *Config) { c.CPU.Model = "i386" },
		"transport \"usb\"":        func(c *Config) { c.Transport = "usb" },
		"cache \"none\"":           func(c *Config) { c.Disks = []disk.Spec{{File: "x", Cache: "none"}} },
		"disks 1 and 3 are both x": func(c *Config) { c.Disks = []disk.Spec{{File: "x"}, {File: "y"}, {File: "x", ReadOnly: true}} },
		"\"ours\" has nothing":     func(c *Config) { c.AppendInitrds = []boot.Source{{Name: "ours"}} },
		"places for 13": func(c *Config) {
			c.Transport = TransportMMIO
			for range 14 {
				c.Networks = append(c.Networks, Network{Options: netdev.Options{Kind: netdev.KindUser}})
			}
		},
		"kind \"bridge\"": func(c *Config) { c.Networks = []Network{{Options: netdev.Options{Kind: "bridge"}}} },
		"addresses of its own": func(c *Config) {
			c.Networks = []Network{{Options: netdev.Options{Kind: netdev.KindTap}, Publish: make([]netdev.Publish, 1)}}
		},
	} {
		c := good
		change(&c)
		err := c.Validate()
		require.ErrorIs(t, err, ErrConfig, want)
		require.ErrorContains(t, err, want)
		_, err = New(c)
		require.ErrorIs(t, err, ErrConfig, want)
		_, err = PlanOf(c)
		require.ErrorIs(t, err, ErrConfig, want)
	}
}

func TestOpenSourceRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	fifo := filepath.Join(dir, "fifo") // to which nobody writes
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	for path, want := range map[string]string{
		dir:                          "is a directory",
		fifo:                         "not a regular file",
		empty:                        "is empty",
		filepath.Join(dir, "absent"): "check the path",
		"/dev/null":                  "not a regular file",
	} {
		_, _, err := OpenSource(path)
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, want)
	}
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("abc"), 0o600))
	s, c, err := OpenSource(file)
	require.NoError(t, err)
	require.EqualValues(t, 3, s.Size)
	require.Equal(t, file, s.Name)
	require.NoError(t, c.Close())
}

func TestNewWithoutKVMSaysSo(t *testing.T) {
	cfg := config(t, forever)
	cfg.KVM = filepath.Join(t.TempDir(), "kvm")
	_, err := New(cfg)
	require.ErrorIs(t, err, ErrKVM)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, cfg.KVM)
}

// TestPlanNeedsNoKVM: and says what the machine would be.
func TestPlanNeedsNoKVM(t *testing.T) {
	cfg := config(t, forever)
	cfg.KVM, cfg.Memory, cfg.CPUs, cfg.CommandLine, cfg.DebugExit = "/nowhere", 5*gib, 4, "console=ttyS0", true
	cfg.Initrds = []boot.Source{{Name: "initrd", Size: 3, ReaderAt: bytes.NewReader([]byte("abc"))}}
	p, err := PlanOf(cfg)
	require.NoError(t, err)
	s := p.String()
	for _, want := range []string{"tiny: ELF", "console=ttyS0", "initrd   initrd", "4 processors, 5120 MiB", "0x0003f8+8 COM1", "0x0000f4+4 debug-exit", "0x000505+1 pvpanic", "RAM", "reserved"} {
		require.Contains(t, s, want)
	}
	last := p.MemoryMap[len(p.MemoryMap)-1]
	require.EqualValues(t, 6*gib, last.End(), "2 GiB of the 5 lie above 4 GiB")
	require.Less(t, len(s), 2000)

	cfg.Kernel = boot.Source{Name: "text", Size: 5, ReaderAt: strings.NewReader("hello")}
	_, err = PlanOf(cfg)
	require.ErrorIs(t, err, boot.ErrNotKernel)

	cfg = config(t, forever)
	cfg.Initrds = []boot.Source{{Name: "huge", Size: gib, ReaderAt: strings.NewReader("")}}
	_, err = PlanOf(cfg)
	require.ErrorIs(t, err, boot.ErrNoRoom)
}

// TestPlanAsJSON: every name is in the one style, and every list is one.
func TestPlanAsJSON(t *testing.T) {
	p, err := PlanOf(config(t, forever))
	require.NoError(t, err)
	text, err := json.Marshal(p)
	require.NoError(t, err)
	require.NotRegexp(t, `"[A-Z]\w*":`, string(text))
	require.NotContains(t, string(text), "null")
}

func TestConsoleWatchSeesAPanicHoweverItIsCut(t *testing.T) {
	text := "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root\r\nmore\r\n"
	for size := 1; size <= len(text); size++ {
		var out bytes.Buffer
		w := &consoleWatch{out: &out}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			_, err := w.Write([]byte(rest[:n]))
			require.NoError(t, err)
			rest = rest[n:]
		}
		line, seen := w.panicked()
		require.True(t, seen)
		require.Equal(t, "Kernel panic - not syncing: VFS: Unable to mount root", line)
		require.Equal(t, text, out.String())
	}
	require.Less(t, len(text), maxAfterPanic)

	w := &consoleWatch{}
	for range 1000 {
		_, err := w.Write([]byte("[ 1.0] Kernel panic - not sync, nearly; and not at a line's start: Kernel panic - not syncing\n"))
		require.NoError(t, err)
	}
	_, seen := w.panicked()
	require.False(t, seen)
	require.Less(t, cap(w.tail), 4096, "it does not keep the console")

	// A log shown by a system that lives on, and then a real one.
	w = &consoleWatch{}
	for range 2 {
		_, err := w.Write([]byte("\n" + panicBanner + ": old\n"))
		require.NoError(t, err)
		_, seen = w.panicked()
		require.True(t, seen)
		_, err = w.Write(bytes.Repeat([]byte("login: "), maxAfterPanic/4))
		require.NoError(t, err)
		_, seen = w.panicked()
		require.False(t, seen)
	}

	broken := &consoleWatch{out: brokenPipe{}}
	_, err := broken.Write([]byte("x"))
	require.ErrorIs(t, err, os.ErrClosed)
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestResidentMemoryIsToldApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smaps")
	require.NoError(t, os.WriteFile(path, []byte(`00400000-00500000 r-xp 00000000 00:00 0 /bin/husk
Size: 1024 kB
Rss:                 700 kB
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
Rss:              100000 kB
Private_Hugetlb:    2048 kB
7f0010000000-7f0010200000 rw-p 00000000 00:00 0
Rss:                  24 kB
`), 0o600))
	in, out, err := residentMemory(path, 0x7f0000000000, 0x7f0010000000)
	require.NoError(t, err)
	require.EqualValues(t, 102048*kib, in)
	require.EqualValues(t, 724*kib, out)
	_, _, err = residentMemory(path+"x", 0, 0)
	require.True(t, errors.Is(err, os.ErrNotExist))
}
