package console

import (
	"reflect"
	"strings"
	"testing"
)

func TestRestart(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []int // lines that begin anew, from 0
	}{
		{"once", "[    0.000000] Linux version 6.1\n[    1.000000] x\n", nil},
		{"an old log", "[    0.000000] Linux version 6.1\n[    9.000000] x\n# dmesg\n[    0.000000] Linux version 6.1\n", nil},
		{"a reboot", "[    0.000000] Linux version 6.1\n[    9.000000] reboot: machine restart\n[    0.000000] Linux version 6.1\n[    9.000000] x\n", []int{2}},
		{"a panic", "Linux version 6.1\nKernel panic - not syncing: x\nLinux version 6.1\n", []int{2}},
		{"a panic that goes on", "[    9.000100] Kernel panic - not syncing: x\n[    9.000000] y\n[   10.000000] z\n", nil},
		{"kexec", "[    0.000000] Linux version 6.1\n[    5.000000] kexec_core: Starting new kernel\n[    0.000000] Linux version 6.2\n", []int{2}},
		{"quiet", "[    5.000000] reboot: Restarting system\n[    0.700000] x\n[    0.800000] x\n", []int{1}},
		{"a boot loader", "EFI stub: Loaded\n[    0.000000] Linux version 6.1\nEFI stub: Loaded\n[    0.000000] Linux version 6.1\n", []int{2}},
		{"torn", "[    0.000000] Linux version 6.1\nlogin: [    9.000000] reboot: Restarting system\n[    0.000000] Linux version 6.1\n", []int{2}},
	} {
		var r Restart
		var got []int
		for i, text := range strings.Split(c.text, "\n") {
			s, text, _ := ParseStamp(text)
			if r.Line(Line{Kernel: s.Kernel, Text: text}) {
				got = append(got, i)
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: anew at %v, want %v", c.name, got, c.want)
		}
	}
}
