package boot

import (
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/require"
)

// TestRunVolumes: the host sees what the guest does in a volume and the guest what the
// host does; read-only ones stay as they are; a file can be one.
func TestRunVolumes(t *testing.T) {
	h := newHome(t)
	dir := t.TempDir()
	for _, d := range []string{"rw", "ro"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, d), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, d, "file"), []byte("of the host\n"), 0o644))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("not shared\n"), 0o644))
	require.NoError(t, os.Symlink("../secret", filepath.Join(dir, "rw/out")))
	id := h.detached("--name", "volumes",
		"-v", dir+"/rw:/rw", "-v", dir+"/ro:/made/for/ro:ro", "-v", dir+"/ro/file:/etc/one-file:ro", "busy", "sleep", "1000")

	sh := func(script string) run { return h.husk("exec", "volumes", "sh", "-c", script) }
	r := sh(`cat /rw/file /made/for/ro/file /etc/one-file; echo of the guest >/rw/new; mkdir /rw/dir; mv /rw/file /rw/dir/moved; chmod 750 /rw/dir; ln -s moved /rw/dir/link`)
	r.wantCode(t, 0)
	require.Equal(t, strings.Repeat("of the host\n", 3), r.stdout)
	b, err := os.ReadFile(filepath.Join(dir, "rw/new"))
	require.NoError(t, err)
	require.Equal(t, "of the guest\n", string(b))
	info, err := os.Stat(filepath.Join(dir, "rw/dir"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o750), info.Mode().Perm())
	require.FileExists(t, filepath.Join(dir, "rw/dir/moved"))
	require.NoFileExists(t, filepath.Join(dir, "rw/file"))
	target, err := os.Readlink(filepath.Join(dir, "rw/dir/link"))
	require.NoError(t, err)
	require.Equal(t, "moved", target)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "rw/later"), []byte("written later\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ro/later"), []byte("written later\n"), 0o644))
	r = sh(`cat /rw/later /made/for/ro/later`)
	require.Equal(t, "written later\nwritten later\n", r.stdout, r.stderr)

	r = sh(`for f in /made/for/ro/new /made/for/ro/file /etc/one-file; do (echo x >$f) 2>&1; done; rm /made/for/ro/file; chmod 600 /made/for/ro/file; mount -o remount,rw /made/for/ro && echo x >/made/for/ro/new`)
	require.NotZero(t, r.code)
	require.Contains(t, r.stdout+r.stderr, "Read-only file system")
	require.NoFileExists(t, filepath.Join(dir, "ro/new"), "the host keeps a read-only volume as it is, also when the guest mounts it anew")
	b, err = os.ReadFile(filepath.Join(dir, "ro/file"))
	require.NoError(t, err)
	require.Equal(t, "of the host\n", string(b))

	r = sh(`cat /rw/out /rw/../secret /rw/dir/../../secret`)
	require.NotContains(t, r.stdout, "not shared", "a volume is no way out")
	h.must("rm", "-f", id)
}

// TestRunStorage: with --rw-size what is written goes to a disk of that size, and is gone
// with the machine.
func TestRunStorage(t *testing.T) {
	h := newHome(t)
	r := h.container("--rw-size", "64m", "busy", "sh", "-c",
		`df -m / | awk 'NR==2{print ($2 < 80), ($2 > 40)}'; dd if=/dev/zero of=/big bs=1M count=100 2>&1 | grep -o 'No space left on device'; rm /big; echo kept >/etc/kept; cat /etc/kept; id -un`)
	r.wantCode(t, 0)
	require.Equal(t, "1 1\nNo space left on device\nkept\nroot\n", r.stdout)
	r = h.container("--tmpfs", "/t:size=2m", "--shm-size", "1m", "busy", "sh", "-c",
		`ls /etc/kept; df -k /t /dev/shm | awk 'NR>1{print $2}'`)
	require.Equal(t, "2048\n1024\n", r.stdout)
	require.Contains(t, r.stderr, "/etc/kept: No such file")
}

// TestRunFromARegistry: an image that is not here is fetched, once.
func TestRunFromARegistry(t *testing.T) {
	h := newHome(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := registry.New(registry.Logger(quiet(t)))
	server := httptest.NewUnstartedServer(served)
	require.NoError(t, server.Listener.Close())
	server.Listener = l
	server.Start()
	ref, err := name.ParseReference(l.Addr().String() + "/team/busy:v1")
	require.NoError(t, err)
	tag, err := name.NewTag("busy:latest")
	require.NoError(t, err)
	image, err := tarball.ImageFromPath(imageFile(t, "small.tar"), &tag)
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image))

	r := h.container(ref.String(), "echo", "from a registry")
	r.wantCode(t, 0)
	require.Equal(t, "from a registry\n", r.stdout)
	server.Close()
	r = h.container(ref.String(), "echo", "it is here")
	r.wantCode(t, 0)
	r = h.container("--pull", "always", ref.String(), "true")
	r.wantCode(t, 125)
	r = h.container("127.0.0.1:1/no/such:image", "true")
	r.wantCode(t, 125)
	require.Contains(t, r.stderr, "127.0.0.1:1")
	h.must("rmi", ref.String())
}

// TestRunADebian: a distribution's own image, and what its tools make of it.
func TestRunADebian(t *testing.T) {
	h := newHome(t)
	h.must("load", "-i", imageFile(t, "debian.tar"))
	r := h.container("-e", "LC_ALL=C.UTF-8", "debian", "bash", "-c",
		`set -e; . /etc/os-release; echo $ID; dpkg --verify || true; dpkg -l | grep -c ^ii; useradd -m -G staff worker; su - worker -c 'id -un; pwd'; perl -e 'print "perl\n"'; find / -xdev | wc -l; tar -cf /dev/null -C / usr`)
	r.wantCode(t, 0)
	require.Contains(t, r.stdout, "debian\n")
	require.Contains(t, r.stdout, "worker\n/home/worker\nperl\n")
	h.must("rmi", "debian")
}

// TestRunWhatOthersBuild: images that docker build and buildah have made.
func TestRunWhatOthersBuild(t *testing.T) {
	for _, tt := range []struct{ file, image, want string }{
		{"docker-built.tar", "docker-built", "hello from a Dockerfile\nuid=1234(worker) gid=1234(worker) groups=1234(worker),29(audio),50(staff)\n"},
		{"buildah-built.tar", "buildah-built", "uid=2345(builder) gid=50(staff) groups=50(staff)\n/home/builder\nb c\n"},
	} {
		t.Run(tt.image, func(t *testing.T) {
			h := newHome(t)
			path := filepath.Join("../../build/images", tt.file)
			if _, err := os.Stat(path); err != nil {
				t.Skipf("tests/make-images %s makes it, where that tool is: %v", tt.image, err)
			}
			// buildah's archive has a tag alone, which makes no name: the image's ID is said then.
			loaded := strings.Fields(h.must("load", "-q", "-i", path))
			r := h.container(loaded[len(loaded)-1])
			r.wantCode(t, 0)
			require.Equal(t, tt.want, r.stdout)
		})
	}
}
