package stage

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/huskvm/husk/internal/smoke/console"
)

// follow gives a console's text to a tracker, each line a millisecond later.
func follow(text string) *Tracker {
	t := New()
	tr := console.New()
	tr.Watch(t.Line)
	for i, line := range strings.SplitAfter(text, "\n") {
		tr.Add(time.Duration(i)*time.Millisecond, []byte(line))
	}
	tr.Close()
	return t
}

func names(t *Tracker) []string {
	var out []string
	for _, p := range t.Phases() {
		out = append(out, p.Name)
	}
	return out
}

const booted = `[    0.000000] Linux version 6.1.0 (x) #1 SMP
[    0.000000] Command line: %s
[    0.030000] Memory: 480000K/524288K available (14336K kernel code)
[    0.100000] smp: Bringing up secondary CPUs ...
[    0.110000] smp: Brought up 1 node, 1 CPU
[    0.120000] devtmpfs: initialized
[    0.200000] Trying to unpack rootfs image as initramfs...
[    0.210000] NET: Registered PF_INET protocol family
[    0.500000] Freeing initrd memory: 1024K
[    0.600000] Run /init as init process
`

func TestStages(t *testing.T) {
	upToInitramfs := []string{"first-printk", "memory", "smp", "drivers", "initramfs"}
	with := func(more ...string) []string {
		return append(upToInitramfs[:len(upToInitramfs):len(upToInitramfs)], more...)
	}
	noRoot, root := fmt.Sprintf(booted, "console=ttyS0"), fmt.Sprintf(booted, "console=ttyS0 root=/dev/vda1")
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", nil},
		{"firmware", "BdsDxe: loading Boot0001\n", nil},
		{"decompressor", "\nDecompressing Linux... Parsing ELF... done.\nBooting the kernel.\n", []string{"decompress"}},
		{"early panic", "[    0.000000] Kernel panic - not syncing: x\n", []string{"first-printk"}},
		{"an initramfs and nothing else", noRoot, with("init")},
		{"a root, not mounted yet", root, upToInitramfs},
		{"initramfs-tools", root + "Loading, please wait...\nBegin: Mounting root file system ... done.\n[    1.000000] virtio_blk x\n", upToInitramfs},
		{"a root mounted", root + "[    2.000000] EXT4-fs (vda1): mounted filesystem with ordered data mode.\n", with("root-mounted")},
		{"a root and its init", root + "[    2.000000] EXT4-fs (vda1): mounted filesystem\n[    3.000000] systemd[1]: systemd 252 running in system mode (+PAM)\n", with("root-mounted", "init")},
		{
			"a systemd in the initramfs", root +
				"[    1.000000] systemd[1]: systemd 255 running in system mode (+PAM)\n" +
				"[    1.100000] systemd[1]: Detected architecture x86-64.\n" +
				"[    1.200000] systemd[1]: Running in initrd.\n\nWelcome to Fedora (Initramfs)!\n\n" +
				"[    1.300000] systemd[1]: Hostname set to <x>.\n[    1.400000] systemd[1]: Queued start job for default target initrd.target.\n" +
				"[  OK  ] Reached target basic.target\n", upToInitramfs,
		},
		{
			"a systemd in both", root +
				"[    1.000000] systemd[1]: systemd 255 running in system mode (+PAM)\n[    1.200000] systemd[1]: Running in initrd.\n" +
				"[    2.000000] systemd[1]: Switching root.\n[    3.000000] systemd[1]: systemd 255 running in system mode (+PAM)\n", with("root-mounted", "init"),
		},
		{"no initramfs", "[    1.000000] VFS: Mounted root (ext4 filesystem) readonly on device 254:0.\n[    1.100000] Run /sbin/init as init process\n", []string{"root-mounted", "init"}},
		{"quiet", "hello from init\n", []string{"init"}},
		{"quiet, initramfs-tools", "Loading, please wait...\n", nil},
		{"quiet, but for a warning", "[    0.300000] x: a warning\nhello\n", []string{"first-printk", "init"}},
		{"an old log", noRoot + "# dmesg\n" + noRoot, with("init")},
		{"a reboot", noRoot + "[    5.000000] reboot: machine restart\n[    0.000000] Linux version 6.1.0 (x) #1 SMP\n", []string{"firmware", "first-printk"}},
	} {
		tr := follow(c.text)
		if got := names(tr); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		var want Stage
		if n := len(c.want); n > 0 {
			want = Stage(c.want[n-1])
		}
		if tr.Reached() != want {
			t.Errorf("%s: reached %s, want %s", c.name, tr.Reached(), want)
		}
	}
}

func TestDebian(t *testing.T) {
	log, err := os.ReadFile("../detect/testdata/clean-debian.log")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(log), "\n")
	want := []string{"first-printk", "memory", "smp", "drivers", "initramfs", "root-mounted", "init"}
	if got := names(follow(text)); !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestWhatIsKnownFromElsewhere(t *testing.T) {
	tr := New()
	tr.Entered(5 * time.Millisecond)
	tr.Reach(Init, 50*time.Millisecond)
	tr.Reach(Memory, 60*time.Millisecond) // behind it
	p := tr.Phases()
	if len(p) != 2 || p[0].Name != "firmware" || p[0].At != 5*time.Millisecond || p[1].Name != "init" || tr.Reached() != Init {
		t.Errorf("%+v, reached %s", p, tr.Reached())
	}
}

// TestResets has a machine start again, which its console need not show.
func TestResets(t *testing.T) {
	tr := New()
	if tr.Reached() != "" || len(tr.Phases()) > 0 {
		t.Errorf("a machine that has not run has reached %q", tr.Reached())
	}
	tr.Entered(5 * time.Millisecond)
	tr.Line(console.Line{Kernel: -1, Start: 6 * time.Millisecond, Text: "hello from init"})
	tr.Line(console.Line{Kernel: time.Second, Start: 7 * time.Millisecond, Text: "Command line: root=/dev/vda"})
	if tr.Reached() != Init {
		t.Errorf("reached %q", tr.Reached())
	}
	tr.Entered(8 * time.Millisecond)
	if p := tr.Phases(); tr.Reached() != Firmware || len(p) != 1 || p[0].At != 8*time.Millisecond {
		t.Errorf("%+v, reached %s, behind a reset", p, tr.Reached())
	}
	// Nothing is known of its command line, and its first line starts no third boot.
	tr.Line(console.Line{Kernel: 0, Start: 9 * time.Millisecond, Text: "Linux version 6.1.0"})
	tr.Line(console.Line{Kernel: -1, Start: 10 * time.Millisecond, Text: "hello from init"})
	if got := names(tr); !reflect.DeepEqual(got, []string{"firmware", "first-printk", "init"}) {
		t.Errorf("%q", got)
	}
}
