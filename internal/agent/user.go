package agent

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// Where users and groups are looked up, in the root that commands run in.
const (
	passwdFile = "/etc/passwd"
	groupFile  = "/etc/group"
)

// maxUserFile bounds those files in bytes: they are read at each command.
const maxUserFile = 16 << 20

// openUserFile opens one of them, or gives nil: a root need not have them. What is no
// file is none; a named pipe must not be waited for.
func openUserFile(name string) *os.File {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		_ = f.Close()
		return nil
	}
	return f
}

// lookUpUser says who "USER[:GROUP]" is, as Docker does: by the root's own files,
// names or numbers, of which a number need not be in them. groups are further ones.
func lookUpUser(who string, groups []string) (*user.ExecUser, error) {
	passwd, members := openUserFile(passwdFile), openUserFile(groupFile)
	defer passwd.Close() //nolint:staticcheck // a nil *os.File may be closed
	defer members.Close()
	return findUser(who, groups, limited(passwd), limited(members))
}

// limited is a file's content, nil for no file.
func limited(f *os.File) io.Reader {
	if f == nil {
		return nil
	}
	return io.LimitReader(f, maxUserFile)
}

// findUser is lookUpUser with the content of the files, either of which may be nil.
func findUser(who string, groups []string, passwd, group io.Reader) (*user.ExecUser, error) {
	var members []byte
	if group != nil {
		var err error
		if members, err = io.ReadAll(group); err != nil {
			return nil, err
		}
	}
	again := func() io.Reader { // it is read twice
		if group == nil {
			return nil
		}
		return bytes.NewReader(members)
	}
	u, err := user.GetExecUser(who, &user.ExecUser{Home: "/"}, passwd, again())
	if err != nil {
		return nil, err
	}
	if len(groups) == 0 {
		return u, nil
	}
	if slices.Contains(groups, "") { // the library fails on it
		return nil, errors.New("a further group has no name")
	}
	more, err := user.GetAdditionalGroups(groups, again())
	if err != nil {
		return nil, err
	}
	slices.Sort(more)
	for _, g := range more {
		if !slices.Contains(u.Sgids, g) {
			u.Sgids = append(u.Sgids, g)
		}
	}
	return u, nil
}

// credential is a user for the kernel. The group is one of the supplementary ones, too,
// as with Docker: else a setgid program could be used to be rid of it, where files are
// refused to its members (CVE-2022-36109).
func credential(u *user.ExecUser) *syscall.Credential {
	c := &syscall.Credential{Uid: uint32(u.Uid), Gid: uint32(u.Gid), Groups: []uint32{uint32(u.Gid)}}
	for _, g := range u.Sgids {
		if g != u.Gid {
			c.Groups = append(c.Groups, uint32(g))
		}
	}
	return c
}

// environment is a command's: what is given, and what no program does well without
// where that is missing. In a container that is as in Docker's.
func (v *Server) environment(c start, u *user.ExecUser) []string {
	var env []string
	add := func(name, value string) {
		if !slices.ContainsFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			env = append(env, name+"="+value)
		}
	}
	add("PATH", defaultPath)
	if v.Container != nil {
		if name, err := os.Hostname(); err == nil {
			add("HOSTNAME", name)
		}
		if c.TTY {
			add("TERM", "xterm")
		}
	}
	env = append(env, c.Env...)
	home := "/root"
	if u != nil {
		home = u.Home
	} else if _, err := os.Stat(home); err != nil {
		home = "/"
	}
	add("HOME", home)
	return env
}

// who is the user that runs a command: nil to stay who the agent is.
func (v *Server) who(c start) (*user.ExecUser, error) {
	if c.User == "" && len(c.Groups) == 0 && v.Container == nil {
		return nil, nil //nolint:nilnil // nobody is told
	}
	return lookUpUser(c.User, c.Groups)
}
