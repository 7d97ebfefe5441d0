package main

import "regexp"

// accepted are the differences between Docker and husk that are meant, or that nobody
// can do anything about. Any other fails TestBesideDocker.
var accepted = []struct {
	test   string         // its name, "" for all
	line   *regexp.Regexp // of what differences gives
	reason string
}{
	// A machine is the border, so nothing of its kernel is kept from what runs in it.
	{"devices", match(`^stdout: \+`), "all devices of the machine are there, root's alone"},
	{"rest of proc", match(``), "another kernel has other files"},
	{"mounts", match(`^stdout: -(/proc/|/sys/firmware)`), "/proc and /sys hide nothing in a machine"},
	{"mounts", match(`(/dev (dev)?tmpfs|/etc/(hosts|hostname|resolv\.conf) \S+|/sys/fs/cgroup \S+)$`), "of another kind of file system"},
	{"options of mounts", match(`[-+]/dev (dev)?tmpfs `), "the kernel's own /dev"},
	{"options of mounts", match(`[-+]/dev/shm .*,size=65536k(,inode64)?$`), "another kernel says more of it"},
	{"read-only mounts", match(`[-+]/sys r[ow]$`), "the machine's /sys can be written to, as with --privileged"},
	{"files of the root", match(`^stdout: --rwxr-xr-x 0 0 /\.dockerenv|exit code|stderr: \+stat: can't stat '/\.\?\?\*'`), "husk is not Docker, and does not say that it is"},
	{"loopback", match(`\+inet6 ::1/128`), "IPv6 is on"},

	{"devices of the image", match(`Operation not permitted|No such device or address`), "the machine's kernel has no such disk, where a control group forbids it"},
	{"odd files", match(`^stdout: [-+]drwx--x--x 1001 1001 [12] changed$`), "overlayfs counts no links to folders of several layers, and husk's root has one"},
	{"volumes of the image", match(`/data|/new/volume|of-the-image`), "with --read-only, they are memory, and start out empty"},
	{"linked files", match(`^stdout: -0$|^stdout: \+1$|^stderr: -ls: /run/systemd/resolve: `), "the image's link stays, and leads to the file"},

	// Texts of files that mean the same.
	{"", match(`[-+]"(fe00|ff00)::0?\\tip6-(localnet|mcastprefix)"`), "the same addresses, written as they are today"},
	{"files made at the start", match(`regular file /etc/(hosts|resolv\.conf)$`), "of another length: see hosts"},
	{"names of the network", match(`same lines in another order`), "resolv.conf in the order of later versions of Docker"},
	{"image env", match(`same lines in another order`), "a shell's list of variables has no order"},

	// Exit codes.
	{"working directory is a file", match(`exit code: 126, Docker's 125`), "it is found out where the command is started, as by docker exec"},
	{"below a file", match(`exit code: 127, Docker's 125`), "there is no such command"},
	{"not a program", match(``), "126, as Docker's manual says, not 1"},
	{"no shebang", match(``), "126, as Docker's manual says, not 1"},
	{"empty file", match(``), "126, as Docker's manual says, not 1"},
	{"no interpreter", match(``), "126 or 127, as Docker's manual says, not 1"},
	{"user huge", match(``), "Docker refuses numbers above 31 bits; Linux does not"},
	{"user 4294967294", match(``), "Docker refuses numbers above 31 bits; Linux does not"},
	{"user 2147483648", match(``), "Docker refuses numbers above 31 bits; Linux does not"},
}

// match is a pattern.
func match(pattern string) *regexp.Regexp { return regexp.MustCompile(pattern) }

// acceptedReason is why a line of a test's differences is no failure, "" if it is one.
func acceptedReason(test, line string) string {
	for _, a := range accepted {
		if (a.test == "" || a.test == test) && a.line.MatchString(line) {
			return a.reason
		}
	}
	return ""
}
