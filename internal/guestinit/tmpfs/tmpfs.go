// Package tmpfs reads the options of a tmpfs as Docker's users write them.
package tmpfs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Options are how a tmpfs is mounted.
type Options struct {
	Flags uintptr // MS_*
	Data  string  // the file system's own: "size=64m,mode=1777"
}

// flags are the options that set or clear a flag.
var flags = map[string]struct {
	flag  uintptr
	clear bool
}{
	"ro":            {unix.MS_RDONLY, false},
	"rw":            {unix.MS_RDONLY, true},
	"nosuid":        {unix.MS_NOSUID, false},
	"suid":          {unix.MS_NOSUID, true},
	"nodev":         {unix.MS_NODEV, false},
	"dev":           {unix.MS_NODEV, true},
	"noexec":        {unix.MS_NOEXEC, false},
	"exec":          {unix.MS_NOEXEC, true},
	"sync":          {unix.MS_SYNCHRONOUS, false},
	"async":         {unix.MS_SYNCHRONOUS, true},
	"dirsync":       {unix.MS_DIRSYNC, false},
	"remount":       {0, false},
	"mand":          {0, false}, // no kernel since 5.15 has them
	"nomand":        {0, false},
	"atime":         {unix.MS_NOATIME, true},
	"noatime":       {unix.MS_NOATIME, false},
	"diratime":      {unix.MS_NODIRATIME, true},
	"nodiratime":    {unix.MS_NODIRATIME, false},
	"relatime":      {unix.MS_RELATIME, false},
	"norelatime":    {unix.MS_RELATIME, true},
	"strictatime":   {unix.MS_STRICTATIME, false},
	"nostrictatime": {unix.MS_STRICTATIME, true},
	"defaults":      {0, false},
	// The container has no mounts to share with anybody.
	"private": {0, false}, "rprivate": {0, false}, "shared": {0, false}, "rshared": {0, false},
	"slave": {0, false}, "rslave": {0, false}, "unbindable": {0, false}, "runbindable": {0, false},
}

// keys are the options with a value.
var keys = map[string]bool{
	"size": true, "mode": true, "uid": true, "gid": true, "nr_inodes": true, "nr_blocks": true, "mpol": true,
}

// Parse reads options, separated by commas: "" is Docker's defaults, noexec,nosuid,nodev.
// The last of several that contradict each other counts.
func Parse(text string) (Options, error) {
	o := Options{Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}
	var order []string
	data := map[string]string{}
	for _, option := range strings.Split(text, ",") {
		if option == "" {
			continue
		}
		if f, ok := flags[option]; ok {
			o.Flags |= f.flag
			if f.clear {
				o.Flags &^= f.flag
			}
			continue
		}
		key, value, _ := strings.Cut(option, "=")
		if !keys[key] || value == "" {
			return o, fmt.Errorf("tmpfs option %q: there are size=, mode=, uid=, gid=, nr_inodes=, nr_blocks=, and ro, rw, noexec, exec, nosuid, suid, nodev, dev and the like", option)
		}
		if _, ok := data[key]; !ok {
			order = append(order, key)
		}
		data[key] = value
	}
	for i, key := range order {
		order[i] = key + "=" + data[key]
	}
	o.Data = strings.Join(order, ",")
	return o, nil
}
