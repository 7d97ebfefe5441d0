package main

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/huskvm/husk/kvm/kvmtest"
)

// mainVariable makes the test binary husk itself.
const mainVariable = "HUSK_TEST_MAIN"

// Guests in a few instructions of 64-bit code. They run on any KVM.
var (
	sayHi = []byte{
		0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xb0, 'h', 0xee, // mov al, 'h'; out dx, al
		0xb0, 'i', 0xee,
		0xb0, '\n', 0xee,
	}
	loop    = []byte{0xeb, 0xfe}                               // jmp to itself
	exit33  = []byte{0x66, 0xba, 0xf4, 0x00, 0xb0, 33, 0xee}   // out 0xf4, 33
	noTable = []byte{0x0f, 0x01, 0x1c, 0x25, 0, 0x08, 0x10, 0} // lidt [0x100800]: zeros
	fault   = []byte{0xcd, 0x80}                               // int 0x80
)

// tinyKernel writes an ELF kernel of the code given, entered in 64-bit mode.
func tinyKernel(t *testing.T, code ...[]byte) string {
	t.Helper()
	const base, size = 0x100000, 0x1000
	var b bytes.Buffer
	put := func(v any) { require.NoError(t, binary.Write(&b, binary.LittleEndian, v)) }
	header := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: base,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(header.Ident[:], elf.ELFMAG+"\x02\x01\x01") // 64-bit, little-endian, version 1
	put(header)
	text := bytes.Join(code, nil)
	put(elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: 7, Off: 64 + 56, Vaddr: base, Paddr: base,
		Filesz: uint64(len(text)), Memsz: size, Align: 1,
	})
	b.Write(text)
	return file(t, "vmlinux", b.String())
}

// huskCommand is husk in a process of its own.
func huskCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	require.NoError(t, kvmtest.Need(t).Close())
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), mainVariable+"=1")
	return cmd
}

func TestGuests(t *testing.T) {
	tests := []struct {
		name     string
		code     [][]byte
		args     []string
		exit     int
		out, err string
	}{
		{"debug exit", [][]byte{sayHi, exit33}, []string{"--debug-exit"}, 33, "hi\n", ""},
		{"no debug exit", [][]byte{sayHi, exit33, loop}, []string{"--timeout=2s"}, exitTimeout, "hi\n", "husk: timeout"},
		{"triple fault", [][]byte{sayHi, noTable, fault}, nil, exitCrash, "hi\n", "hint:"},
		{"output dropped", [][]byte{sayHi, exit33}, []string{"--debug-exit", "--serial=none"}, 33, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"boot", "--accel=kvm", "-m", "32M", "-k", tinyKernel(t, tt.code...)}, tt.args...)
			cmd := huskCommand(t, args...)
			var out, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &stderr
			_ = cmd.Run()
			require.Equal(t, tt.exit, cmd.ProcessState.ExitCode(), stderr.String())
			require.Equal(t, tt.out, out.String())
			require.Contains(t, stderr.String(), tt.err)
		})
	}
}

func TestTerminalAfterHusk(t *testing.T) {
	kernel := tinyKernel(t, sayHi, loop)
	kill := func(signals ...unix.Signal) func(*testing.T, *exec.Cmd, *os.File, *bufio.Reader) {
		return func(t *testing.T, cmd *exec.Cmd, _ *os.File, lines *bufio.Reader) {
			for i, s := range signals {
				require.NoError(t, cmd.Process.Signal(s))
				if i < len(signals)-1 {
					expect(t, lines, "power button")
				}
			}
		}
	}
	tests := []struct {
		name string
		end  func(*testing.T, *exec.Cmd, *os.File, *bufio.Reader)
		exit int // -1 where a signal ends husk
	}{
		{"Ctrl-A X", func(t *testing.T, _ *exec.Cmd, person *os.File, _ *bufio.Reader) {
			_, err := person.WriteString("\x01x")
			require.NoError(t, err)
		}, exitOK},
		{"Ctrl-A X behind keys that the guest does not take", func(t *testing.T, _ *exec.Cmd, person *os.File, _ *bufio.Reader) {
			_, err := person.WriteString(strings.Repeat("a", 2000) + "\x01x")
			require.NoError(t, err)
		}, exitOK},
		{"SIGTERM twice", kill(unix.SIGTERM, unix.SIGTERM), 128 + int(unix.SIGTERM)},
		{"SIGHUP twice", kill(unix.SIGHUP, unix.SIGHUP), 128 + int(unix.SIGHUP)},
		{"SIGQUIT", kill(unix.SIGQUIT), 2}, // Go's own, with all stacks
		{"SIGKILL", kill(unix.SIGKILL), -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			person, terminal, err := pty.Open()
			require.NoError(t, err)
			defer person.Close()
			defer terminal.Close()
			mode := func() unix.Termios {
				m, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
				require.NoError(t, err)
				return *m
			}
			before := mode()
			cmd := huskCommand(t, "boot", "--accel=kvm", "-m", "32M", "-k", kernel)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			require.NoError(t, cmd.Start())
			lines := bufio.NewReader(person)
			expect(t, lines, "hi")
			require.Zero(t, mode().Lflag&(unix.ICANON|unix.ECHO|unix.ISIG), "raw while the guest runs")

			tt.end(t, cmd, person, lines)
			go func() { _, _ = lines.WriteTo(&buffer{}) }() // what husk still has to say
			_ = cmd.Wait()
			require.Equal(t, tt.exit, cmd.ProcessState.ExitCode())
			// The guard comes after husk's end.
			require.Eventually(t, func() bool { return mode() == before }, time.Minute, time.Millisecond)
		})
	}
}

// expect reads lines until one has the words.
func expect(t *testing.T, lines *bufio.Reader, words string) {
	t.Helper()
	for {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		if strings.Contains(line, words) {
			return
		}
	}
}
