package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// runc is runc alone. It knows nothing of images: what stands in their configurations
// is made a bundle's here, as far as that goes.
type runc struct {
	dir, archive string
	count        int
	roots        map[string]string // unpacked, by the image's name
}

func newRunc(dir, archive string) (*runc, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("runc needs root here")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, fmt.Errorf("%w; tests/install docker installs it", err)
	}
	return &runc{dir: dir, archive: archive, roots: map[string]string{}}, os.MkdirAll(dir, 0o700)
}

// A process is what runc's flags come to.
type process struct {
	user, dir, hostname string
	env                 []string
	readOnly            bool
	argv                []string
}

// capabilities are those that Docker leaves a container's root.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func (r *runc) run(ctx context.Context, c container) (outcome, error) {
	image, root, err := r.image(c.image)
	if err != nil {
		return outcome{}, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return outcome{}, err
	}
	p, err := asked(c, config.Config)
	if err != nil {
		return outcome{}, err
	}
	r.count++
	id := fmt.Sprintf("beside-%d-%d", os.Getpid(), r.count)
	bundle := filepath.Join(r.dir, id)
	for _, d := range []string{"root", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(bundle, d), 0o755); err != nil {
			return outcome{}, err
		}
	}
	defer os.RemoveAll(bundle)
	if err := r.writeConfig(ctx, bundle, root, p); err != nil {
		return outcome{}, err
	}
	mounted := filepath.Join(bundle, "root")
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", root, bundle, bundle)
	if err := unix.Mount("overlay", mounted, "overlay", 0, options); err != nil {
		return outcome{}, fmt.Errorf("overlay in %s: %w", r.dir, err)
	}
	o, err := finish(ctx, func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, "runc", "run", "--bundle", bundle, id)
	}, c.stdin)
	o.Unborn = strings.Contains(o.Stderr, "runc run failed")
	return o, errors.Join(err, unix.Unmount(mounted, unix.MNT_DETACH))
}

// asked puts an image's configuration and flags together, as docker run does.
func asked(c container, config v1.Config) (process, error) {
	p := process{user: config.User, dir: config.WorkingDir, hostname: "box", env: config.Env}
	entry, cmd := config.Entrypoint, config.Cmd
	for i := 0; i < len(c.flags); i++ {
		flag := c.flags[i]
		switch flag {
		case "--read-only":
			p.readOnly = true
			continue
		case "-i":
			continue
		case "-u", "-w", "-e", "--hostname", "--entrypoint":
		default:
			return p, fmt.Errorf("%w: %s", errOther, flag)
		}
		i++
		value := c.flags[i]
		switch flag {
		case "-u":
			p.user = value
		case "-w":
			p.dir = value
		case "-e":
			if !strings.Contains(value, "=") { // of ours
				if value += "=" + os.Getenv(value); strings.HasSuffix(value, "=") {
					continue
				}
			}
			p.env = append(p.env, value)
		case "--hostname":
			p.hostname = value
		case "--entrypoint":
			entry, cmd = nil, nil
			if value != "" {
				entry = []string{value}
			}
		}
	}
	if len(c.argv) > 0 {
		cmd = c.argv
	}
	if p.argv = append(slices.Clone(entry), cmd...); len(p.argv) == 0 {
		return p, fmt.Errorf("%w: no command", errOther)
	}
	if p.dir == "" {
		p.dir = "/"
	}
	return p, nil
}

// writeConfig writes a bundle's config.json: runc's own suggestion, with the process.
func (r *runc) writeConfig(ctx context.Context, bundle, root string, p process) error {
	if out, err := exec.CommandContext(ctx, "runc", "spec", "--bundle", bundle).CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	file := filepath.Join(bundle, "config.json")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(b, &spec); err != nil {
		return err
	}
	passwd, _ := os.ReadFile(filepath.Join(root, "etc/passwd"))
	group, _ := os.ReadFile(filepath.Join(root, "etc/group"))
	who, err := user.GetExecUser(p.user, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return fmt.Errorf("%w: %w", errOther, err)
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + p.hostname, "HOME=" + who.Home}
	caps := map[string]any{"bounding": capabilities, "permitted": capabilities, "effective": capabilities}
	spec["process"] = map[string]any{
		"terminal": false, "cwd": p.dir, "args": p.argv, "env": append(env, p.env...), "capabilities": caps,
		"user": map[string]any{"uid": who.Uid, "gid": who.Gid, "additionalGids": append([]int{who.Gid}, who.Sgids...), "umask": 0o022},
	}
	spec["hostname"] = p.hostname
	spec["root"] = map[string]any{"path": "root", "readonly": p.readOnly}
	if b, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// image gives an image, and the folder that it is unpacked in.
func (r *runc) image(of string) (v1.Image, string, error) {
	tag, err := name.NewTag(of + ":latest")
	if err != nil {
		return nil, "", err
	}
	image, err := tarball.ImageFromPath(r.archive, &tag)
	if err != nil || r.roots[of] != "" {
		return image, r.roots[of], err
	}
	root := filepath.Join(r.dir, "image-"+of)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, "", err
	}
	files := mutate.Extract(image)
	defer files.Close()
	tar := exec.Command("tar", "--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--directory", root)
	tar.Stdin = files
	if out, err := tar.CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("unpacking %s: %w: %s", of, err, out)
	}
	r.roots[of] = root
	return image, root, nil
}
