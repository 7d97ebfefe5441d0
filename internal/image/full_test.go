package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestDiskFull: a pull that fills the disk says so, and leaves nothing; so does one whose
// layers the disk could not hold from the beginning.
func TestDiskFull(t *testing.T) {
	h := newHub(t)
	name := h.push(t, "x", "1", anImage(t, 1))
	says := map[string]string{"small": "MiB are needed", "filling": "no space left on device", "archive": "32 MiB are needed"}
	for mode, says := range says {
		t.Run(mode, func(t *testing.T) {
			name := name
			if mode == "archive" {
				name = "docker-archive:" + fileOf(t, zeros(1<<10)).Name()
			}
			self, err := os.Executable()
			require.NoError(t, err)
			dir := t.TempDir()
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), "HUSK_IMAGE_TEST_CHILD=full "+mode+" "+name, "HUSK_IMAGE_TEST_STORE="+dir)
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}
			var out, errors bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errors
			err = cmd.Run()
			if code := cmd.ProcessState; code == nil || code.ExitCode() == noNamespaces {
				t.Skip("no user namespaces here: ", err, errors.String())
			}
			require.Error(t, err, "the disk is too small")
			require.Contains(t, errors.String(), says)
			require.Contains(t, errors.String(), "husk rmi makes room")
			require.Equal(t, "left: 0\n", out.String())
		})
	}
}

// noNamespaces is the exit code of a child that cannot mount its small disk.
const noNamespaces = 77

// fullChild pulls into a store on a small disk. With "filling", another program fills the
// disk while the first layer comes.
func fullChild(dir, mode, name string) int {
	size := "size=64m"
	if mode == "small" {
		size = "size=256k"
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, size); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return noNamespaces
	}
	s, err := Open(filepath.Join(dir, "husk"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	f := &filler{path: filepath.Join(dir, "other")}
	o := quick(func(o *PullOptions) { o.Progress = f })
	_, err = s.Pull(context.Background(), name, o)
	left, _ := filepath.Glob(filepath.Join(s.dir, "*", "*", "*"))
	partial, _ := filepath.Glob(filepath.Join(s.dir, "partial", "*"))
	fmt.Println("left:", len(left)+len(partial))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A filler fills the disk when the first bytes have come.
type filler struct {
	notes
	once sync.Once
	path string
}

func (f *filler) Advance(v1.Hash, int64) {
	f.once.Do(func() {
		w, err := os.Create(f.path)
		for err == nil {
			_, err = w.Write(make([]byte, 1<<20))
		}
		for n := 4096; n > 0 && w != nil; n /= 2 { // and the last bytes
			for _, err = w.Write(make([]byte, n)); err == nil; {
				_, err = w.Write(make([]byte, n))
			}
		}
	})
}
