package vmm

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/huskvm/husk/devices/share"
	"github.com/huskvm/husk/devices/virtio"
	"github.com/huskvm/husk/devices/virtio/fs"
)

// A Share is a folder of the host, or a single file, that the guest can mount
// (virtio-fs). A file is the only entry, under its own name, of a folder that is empty
// otherwise.
type Share struct {
	// Tag is what the guest mounts it by: mount -t virtiofs TAG /mnt. It has 1 to 36
	// bytes, and no other share has it.
	Tag string
	// Path is the folder or file on the host.
	Path string
	// ReadOnly refuses, on the host, all that would change something.
	ReadOnly bool
	// CacheTime is how long the guest may go on believing what it knows of names and
	// attributes. With 0 it sees at once what changes on the host; see share.Config.
	CacheTime time.Duration
}

// validateShares refuses what cannot be shared.
func (c Config) validateShares() error {
	for i, s := range c.Shares {
		if err := fs.CheckTag(s.Tag); err != nil {
			return fmt.Errorf("%w: share %d: %w", ErrConfig, i+1, err)
		}
		for j, o := range c.Shares[:i] {
			if s.Tag == o.Tag {
				return fmt.Errorf("%w: shares %d and %d both have the tag %q; the guest mounts by it, so give each its own", ErrConfig, j+1, i+1, s.Tag)
			}
		}
		if s.CacheTime < 0 {
			return fmt.Errorf("%w: share %s: a cache time of %v; give 0 or more", ErrConfig, s.Tag, s.CacheTime)
		}
		if err := s.look(); err != nil {
			return fmt.Errorf("%w: share %s: %w", ErrConfig, s.Tag, err)
		}
	}
	return nil
}

// look tells whether there is something to share.
func (s Share) look() error {
	if s.Path == "" {
		return fmt.Errorf("no path; name a folder or a file")
	}
	info, err := os.Stat(s.Path)
	if err != nil {
		return fmt.Errorf("%w; check the path", err)
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: neither a folder nor a regular file: only those can be shared", s.Path)
	}
	return nil
}

func (s Share) name() string { return "virtio-fs " + s.Tag + "=" + s.Path }

// descriptorsKept is what part of the process's descriptors is not for shares.
const descriptorsKept = 4

func (vm *VM) openShares() error {
	if len(vm.cfg.Shares) == 0 {
		return nil
	}
	limit, err := share.OpenLimit()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	each := max((limit-limit/descriptorsKept)/len(vm.cfg.Shares), 1)
	for _, s := range vm.cfg.Shares {
		opened, err := share.Open(share.Config{
			Path: s.Path, ReadOnly: s.ReadOnly, CacheTime: s.CacheTime, MaxOpen: each, Log: vm.log.With("share", s.Tag),
		})
		if err != nil {
			return fmt.Errorf("%w: share %s: %w", ErrConfig, s.Tag, err)
		}
		vm.onClose(opened.Close)
		vm.shares = append(vm.shares, opened)
	}
	return nil
}

// maxShareQueues bounds a share's request queues: each takes a thread and a vector.
// Linux before 6.12 uses only the first.
const maxShareQueues = 4

func newShare(s *share.Share, tag string, cpus int) (virtio.Device, error) {
	return fs.New(fs.Config{Server: s, Tag: tag, Queues: min(cpus, maxShareQueues)})
}

// ParseShare reads
//
//	TAG=PATH[,ro][,cache=TIME]
//
// A comma in PATH is written twice.
func ParseShare(text string) (Share, error) {
	fail := func(format string, args ...any) (Share, error) {
		return Share{}, fmt.Errorf("%w: share %q: %s", ErrConfig, text, fmt.Sprintf(format, args...))
	}
	tag, rest, found := strings.Cut(text, "=")
	if !found {
		return fail("write it as TAG=PATH, with the tag that the guest mounts it by")
	}
	const comma = "\x00" // no path has one
	if strings.Contains(rest, comma) {
		return fail("the path holds a zero byte")
	}
	words := strings.Split(strings.ReplaceAll(rest, ",,", comma), ",")
	s := Share{Tag: tag, Path: strings.ReplaceAll(words[0], comma, ",")}
	if err := fs.CheckTag(tag); err != nil {
		return fail("%v", err)
	}
	if s.Path == "" {
		return fail("name a folder or a file behind the =")
	}
	for _, word := range words[1:] {
		value, isCache := strings.CutPrefix(word, "cache=")
		switch {
		case word == "ro":
			s.ReadOnly = true
		case isCache:
			d, err := time.ParseDuration(value)
			if err != nil || d < 0 {
				return fail("cache=%s is not a time; write it as cache=1s", value)
			}
			s.CacheTime = d
		default:
			return fail("%q is neither ro nor cache=TIME (a comma in a path is written twice)", strings.ReplaceAll(word, comma, ","))
		}
	}
	return s, nil
}

// String is what ParseShare reads.
func (s Share) String() string {
	text := s.Tag + "=" + strings.ReplaceAll(s.Path, ",", ",,")
	if s.ReadOnly {
		text += ",ro"
	}
	if s.CacheTime != 0 {
		text += ",cache=" + s.CacheTime.String()
	}
	return text
}
