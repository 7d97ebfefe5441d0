// Package container is what an image and Docker's flags make together: the command of
// a machine, its environment, ports, volumes and limits. Flags mean what they mean to
// docker run; where a machine makes a difference, the error or docs/run.md says so.
package container

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/internal/machine"
)

// A Request is what a user asks for, as typed.
type Request struct {
	Args []string // behind the image

	// The command.
	Entrypoint       *string // nil if it was not given
	Env, EnvFiles    []string
	Workdir, User    string
	Groups           []string
	TTY, Interactive bool
	StopSignal       string
	StopTimeout      *int // seconds; nil if it was not given

	// What is around it.
	Name, Hostname, Domainname string
	Labels, LabelFiles         []string
	AutoRemove, ReadOnly       bool
	Volumes, Mounts, Tmpfs     []string
	ShmSize                    string
	Sysctls                    []string

	// Networks.
	Networks                   []string
	Publish, Expose            []string
	PublishAll                 bool
	MAC                        string
	DNS, DNSSearch, DNSOptions []string
	AddHosts                   []string

	// Limits.
	Memory, CPUs                           string
	CPUShares, CPUWeight                   uint64
	CPUQuota, CPUPeriod                    uint64
	ReadBPS, WriteBPS, ReadIOPS, WriteIOPS []string

	// The machine.
	Append, Disks []string
	RWSize        string
	Timeout       time.Duration
}

// An Image is what to run.
type Image struct {
	Name, ID, Digest string
	Config           *v1.ConfigFile
}

// A Host is where the machine is to run.
type Host struct {
	LookupEnv Lookup
	Dir       string // the current folder
	Volumes   string // the folder of those that have names
	// Free tells whether one can listen somewhere.
	Free func(proto string, at netip.AddrPort) bool
}

// A Plan is a machine to be made.
type Plan struct {
	machine.Spec
	// Folders are to be made if they are not there.
	Folders []string
}

// DefaultMemory is the guest's RAM, in bytes, where nobody says how much it is to be.
// What the guest does not use is not taken from the host.
const DefaultMemory = 1 << 30

// MinMemory is the least RAM, in bytes, that makes sense with any kernel of a distribution; what
// each needs, the machine says when it is made.
const MinMemory = 64 << 20

// idLength is an ID's, in bytes; people see the first six.
const (
	idLength = 32
	shortID  = 12
)

// Plan puts an image and what was asked for together. Root, Kernel, Modules, KVM and Args
// of the spec are the caller's to fill in. Errors name the flag.
func (r *Request) Plan(image Image, host Host) (*Plan, error) {
	config := image.Config.Config
	p := &Plan{}
	p.Spec = machine.Spec{
		ID: newID(), Name: r.Name, Image: machine.Image{Name: image.Name, ID: image.ID, Digest: image.Digest},
		ReadOnly: r.ReadOnly, AutoRemove: r.AutoRemove, Timeout: r.Timeout,
		Append: strings.Join(r.Append, " "), CPUs: 1, Memory: DefaultMemory,
	}
	if err := r.checkName(); err != nil {
		return nil, err
	}
	steps := []func() error{
		func() (err error) { p.Process, err = r.process(config, host); return err },
		func() (err error) { p.Labels, err = labels(config.Labels, r.LabelFiles, r.Labels); return err },
		func() error { return r.setNames(p) },
		func() (err error) { p.Networks, err = r.networks(config, host); return err },
		func() error { return r.setResolver(p) },
		func() error { return r.setMounts(p, config, host) },
		func() error { return r.setLimits(p) },
		func() error { return r.setRest(p, host.Dir) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func newID() string {
	var b [idLength]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails on Linux
	return hex.EncodeToString(b[:])
}

func (r *Request) checkName() error {
	if r.Name == "" {
		return nil
	}
	if err := machine.CheckName(r.Name); err != nil {
		return fmt.Errorf("--name: %w", err)
	}
	return nil
}

// process is the main command.
func (r *Request) process(image v1.Config, host Host) (p machine.Process, err error) {
	p.TTY, p.OpenStdin, p.Groups = r.TTY, r.Interactive, r.Groups
	if p.Argv, err = Command(image, r.Entrypoint, r.Args); err != nil {
		return p, err
	}
	for _, word := range append(append([]string{}, p.Argv...), append(r.Groups, r.User, r.Workdir)...) {
		if strings.ContainsRune(word, 0) {
			return p, fmt.Errorf("%q: a word of a command can have no NUL in it", word)
		}
	}
	if p.Env, err = Env(image.Env, r.EnvFiles, r.Env, host.LookupEnv); err != nil {
		return p, err
	}
	p.User = image.User
	if r.User != "" {
		p.User = r.User
	}
	switch {
	case r.Workdir != "" && !path.IsAbs(r.Workdir):
		return p, fmt.Errorf("--workdir %q: the path is not absolute; it must begin with /", r.Workdir)
	case r.Workdir != "":
		p.Dir = path.Clean(r.Workdir)
	case image.WorkingDir != "":
		p.Dir = path.Clean("/" + image.WorkingDir)
	default:
		p.Dir = "/"
	}
	return p, r.setStop(&p, image)
}

// setStop says how the command is asked to end. An image's signal that there is none of is
// passed over: it was not the user who wrote it.
func (r *Request) setStop(p *machine.Process, image v1.Config) error {
	p.StopSignal, p.StopTimeout = "SIGTERM", machine.DefaultStop
	if r.StopSignal != "" {
		if _, err := machine.ParseSignal(r.StopSignal); err != nil {
			return fmt.Errorf("--stop-signal: %w", err)
		}
		p.StopSignal = r.StopSignal
	} else if _, err := machine.ParseSignal(image.StopSignal); err == nil {
		p.StopSignal = image.StopSignal
	}
	if r.StopTimeout != nil {
		p.StopTimeout = time.Duration(*r.StopTimeout) * time.Second
		if *r.StopTimeout == 0 {
			p.StopTimeout = time.Nanosecond // at once: 0 would be the default
		}
	}
	return nil
}

// setNames gives the guest a host's name: by default what people see of its ID.
func (r *Request) setNames(p *Plan) error {
	p.Hostname, p.Domainname = r.Hostname, r.Domainname
	if p.Hostname == "" {
		p.Hostname = p.ID[:shortID]
	}
	if err := checkHostname("--hostname", p.Hostname); err != nil {
		return err
	}
	return checkHostname("--domainname", p.Domainname)
}

// setResolver says by what names the guest finds others.
func (r *Request) setResolver(p *Plan) (err error) {
	if err := checkServers(r.DNS); err != nil {
		return err
	}
	if p.Search, err = searchDomains(r.DNSSearch); err != nil {
		return err
	}
	if err := checkResolverOptions(r.DNSOptions); err != nil {
		return err
	}
	p.DNS, p.DNSOptions = r.DNS, r.DNSOptions
	for _, text := range r.AddHosts {
		line, err := parseHost(text, gateway(p.Networks))
		if err != nil {
			return err
		}
		p.Hosts = append(p.Hosts, line)
	}
	return nil
}

// setRest is what is husk's own, and the guest's kernel's.
func (r *Request) setRest(p *Plan, dir string) error {
	for _, text := range r.Sysctls {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" || strings.ContainsAny(name, " \t\n\x00") || slices.Contains(strings.Split(name, "/"), "..") {
			return fmt.Errorf("--sysctl %q: write it as NAME=VALUE, as net.core.somaxconn=1024", text)
		}
		if p.Sysctls == nil {
			p.Sysctls = map[string]string{}
		}
		p.Sysctls[name] = value
	}
	if r.ShmSize != "" {
		size, err := ParseSize(r.ShmSize)
		if err != nil {
			return fmt.Errorf("--shm-size %w", err)
		}
		p.ShmSize = int64(size)
	}
	if r.RWSize != "" {
		size, err := ParseSize(r.RWSize)
		if err != nil {
			return fmt.Errorf("--rw-size %w", err)
		}
		if r.ReadOnly && size > 0 {
			return fmt.Errorf("--rw-size %s: with --read-only nothing is written; leave one of them out", r.RWSize)
		}
		p.RWSize = int64(size)
	}
	for _, text := range r.Disks {
		spec, err := disk.ParseSpec(text)
		if err != nil {
			return fmt.Errorf("--disk %w", err)
		}
		if !filepath.IsAbs(spec.File) { // the machine's process is elsewhere
			spec.File = filepath.Join(dir, spec.File)
		}
		p.Disks = append(p.Disks, spec)
	}
	if r.Timeout < 0 {
		return fmt.Errorf("--timeout %v: must not be negative", r.Timeout)
	}
	return nil
}
