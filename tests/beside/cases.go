package main

// A test is one command in one container.
type test struct {
	name  string
	image string   // "" is busy
	flags []string // of docker run and of husk run
	// script is for the image's shell; those with the same image and flags run one after
	// the other in one container. Instead of it, argv is for a container of its own,
	// with no words for what the image says.
	script string
	argv   []string
	stdin  string // with -i among the flags
	quick  bool   // one of those that are also run when time is short
}

func flags(words ...string) []string { return words }

// quick has a test run also when time is short.
func quick(t test) test { t.quick = true; return t }

// tests are all tests.
func tests() []test {
	var all []test
	all = append(all, looks()...)
	all = append(all, users()...)
	all = append(all, ends()...)
	all = append(all, images()...)
	return all
}

// looks look around in a container.
func looks() []test {
	box := flags("--hostname", "box")
	scratch := flags("--hostname", "scratch") // for what changes the container
	readOnly := flags("--hostname", "box", "--read-only", "--tmpfs", "/run", "--tmpfs", "/t:size=1m,mode=700,uid=1000,exec")
	network := flags("--hostname", "box.example.org", "--add-host", "db:192.0.2.7", "--dns", "192.0.2.9", "--dns-search", "example.org", "--dns-option", "ndots:2")
	all := []test{
		{name: "id", flags: box, script: `id`},
		{name: "env", flags: box, script: `env | sort`},
		{name: "working directory", flags: box, script: `pwd; readlink /proc/self/cwd`},
		{name: "hostname", flags: box, script: `hostname; uname -n; cat /etc/hostname; cat /proc/sys/kernel/domainname`},
		{name: "hosts", flags: box, script: `cat /etc/hosts`},
		{name: "files of the root", flags: box, script: `stat -c '%A %u %g %n' / /* /.??*`},
		{name: "files made at the start", flags: box, script: `stat -c '%A %u %g %s %F %n' /etc/hosts /etc/hostname /etc/resolv.conf; readlink /etc/mtab`},
		{name: "devices", flags: box, script: `cd /dev; for f in $(find . | sort); do [ -L $f ] && echo "$f $(readlink $f)" || stat -c '%A %u %g %t:%T %n' $f; done`},
		{name: "devices work", flags: box, script: `echo x >/dev/null; head -c 3 /dev/zero | od -c; head -c 8 /dev/urandom | wc -c; head -c 8 /dev/random | wc -c; echo x >/dev/full; echo out >/dev/stdout; echo err >/dev/stderr; echo in | cat /dev/stdin; : </dev/tty`},
		{name: "mounts", flags: box, script: `awk '{print $2, $3}' /proc/mounts | grep -v '^/sys/fs/cgroup/.' | sort`},
		{name: "options of mounts", flags: box, script: `awk '$2 ~ "^/(proc|dev|dev/pts|dev/shm|dev/mqueue)$" {print $2, $3, $4}' /proc/mounts | sort`},
		{name: "rest of proc", flags: box, script: `ls /proc | grep -v '^[0-9]' | sort`},
		{name: "umask", flags: box, script: `umask; touch /tmp/u; mkdir /tmp/ud; stat -c '%A %n' /tmp/u /tmp/ud`},
		{name: "limits", flags: box, script: `ulimit -a | grep -v 'pending signals\|max user processes\|max locked\|open files'`},
		{name: "signals", flags: box, script: `grep -E '^Sig(Pnd|Blk|Ign|Cgt)' /proc/self/status; grep -E '^Sig(Pnd|Blk|Ign)' /proc/1/status`},
		{name: "privileges", flags: box, script: `grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapInh|CapAmb)' /proc/self/status; cat /proc/self/oom_score_adj`},
		{name: "descriptors", flags: box, script: `for f in 0 1 2; do readlink /proc/1/fd/$f | sed 's/[0-9][0-9]*/N/'; done; ls /proc/1/fd | tr '\n' ' '`},
		{name: "processes", flags: box, script: `echo $(ps -o pid= | wc -l) processes; ps -o pid,ppid,pgid,sid,tty,comm | head -2 | tail -1; tr '\0' '\n' </proc/1/cmdline | head -2`},
		{name: "processors", flags: append(box[:2:2], "--cpus", "1"), script: `nproc >/dev/null && echo ok`},
		{name: "writes", flags: scratch, script: `echo x >/etc/x && cat /etc/x; rm /etc/no-x-bit /bin/script; ls /bin/script; mkdir -p /a/b/c && mv /a /d && ls /d/b; ln /etc/passwd /etc/hard && stat -c %h /etc/passwd; ln -s x /etc/soft && readlink /etc/soft`},
		{name: "rename of a folder of the image", flags: scratch, script: `mv /home/alice /home/bob; ls /home`},
		{name: "hosts can be written", flags: scratch, script: `echo 192.0.2.1 more >>/etc/hosts && tail -n 1 /etc/hosts; echo x >/etc/resolv.conf; cat /etc/resolv.conf; rm /etc/hosts; echo $?`},
		{name: "nodes", flags: box, script: `mknod /tmp/null c 1 3 && echo x >/tmp/null && stat -c '%A %t:%T' /tmp/null; mkfifo /tmp/fifo && stat -c %A /tmp/fifo`},
		{name: "owners", flags: box, script: `touch /tmp/o; chown 4294967294:12345 /tmp/o; chmod 6755 /tmp/o; stat -c '%A %u %g' /tmp/o`},
		{name: "loopback", flags: box, script: `ip -o addr show lo | awk '{print $3, $4}'; ping -c 1 127.0.0.1 | grep -o '1 packets received'; nslookup localhost >/dev/null 2>&1; wget -q -O- http://127.0.0.1:1/ 2>&1 | head -1`},
		{name: "low ports", flags: box, script: `cat /proc/sys/net/ipv4/ip_unprivileged_port_start`},
		{name: "shm", flags: box, script: `df -k /dev/shm | awk 'NR==2{print $2}'; echo x >/dev/shm/x; ls /dev/shm; dd if=/dev/zero of=/dev/shm/big bs=1M count=65 2>&1 | grep -o 'No space.*'; rm -f /dev/shm/big`},
		{name: "exit codes in it", flags: box, script: `false; echo $?; sh -c 'exit 300'; echo $?; nosuch 2>/dev/null; echo $?; /etc/no-x-bit 2>/dev/null; echo $?; sh -c 'kill -9 $$'; echo $?`},
		{name: "many processes", flags: box, script: `for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1; echo $i >/tmp/p$i) & done; wait; ls /tmp/p* | wc -l`},
		{name: "orphans are reaped", flags: box, script: `sh -c 'sleep 0.2 & exit 0'; sleep 0.6; ps -o stat,comm | grep -c '^Z'`},
		{name: "clock", flags: box, script: `d=$(date +%s); [ $d -gt 1700000000 ] && echo set; date +%Z`},

		{name: "read-only root", flags: readOnly, script: `for f in /x /etc/x /tmp/x /etc/hosts /run/x /t/x /dev/shm/x /dev/x; do (echo x >$f) 2>/dev/null && echo "$f written" || echo "$f not written"; done; rm -f /run/x /t/x /dev/shm/x /dev/x`},
		{name: "read-only mounts", flags: readOnly, script: `awk '$2 ~ "^/(|run|t|proc|dev|sys|dev/shm|etc/hosts)$" {split($4, o, ","); print $2, o[1]}' /proc/mounts | sort`},
		{name: "tmpfs", flags: readOnly, script: `grep -E ' /(run|t) ' /proc/mounts | awk '{print $2, $3, $4}' | sed 's/,inode64//' | sort; stat -c '%A %u %g %n' /run /t; df -k /t | awk 'NR==2{print $2}'; cp /bin/busybox /t/sh 2>&1; printf '#!/bin/sh\necho runs' >/t/e; chmod 755 /t/e; /t/e; printf '#!/bin/sh\necho runs' >/run/e; chmod 755 /run/e; /run/e; rm -f /t/* /run/*`},

		{name: "names of the network", flags: network, script: `hostname; hostname -f; cat /etc/hostname /etc/hosts /etc/resolv.conf; grep -c . /etc/resolv.conf`},
		{name: "domain", flags: flags("--hostname", "web", "--domainname", "example.org"), script: `hostname; hostname -d; cat /etc/hostname /etc/hosts; cat /proc/sys/kernel/domainname`},
		{name: "no network", flags: flags("--hostname", "box", "--network", "none"), script: `ip -o link | wc -l; cat /etc/hosts; ip route | wc -l; stat -c '%A %n' /etc/resolv.conf`},
		{name: "environment given", flags: flags("--hostname", "box", "-e", "A=1", "-e", "B=", "-e", "UNSET_HERE", "-e", "A=2", "-e", "FOO=a b  c=d", "-e", "HOME=/elsewhere"), script: `env | sort; cd; pwd`},
		{name: "a name of its own", script: `hostname | grep -c '^[0-9a-f]\{12\}$'; [ "$(hostname)" = "$HOSTNAME" ] && echo HOSTNAME is it; grep -c "$(hostname)" /etc/hosts`},
		{name: "working directory made", flags: flags("-w", "/made/for me"), script: `pwd; stat -c '%A %u %g %n' /made '/made/for me'`},
	}
	for i := range all {
		all[i].quick = true
	}
	return all
}

// users are who commands run as.
func users() []test {
	as := func(user string, more ...string) test {
		return test{
			name: "user " + user, flags: append(flags("-u", user), more...),
			script: `id; echo "HOME=$HOME"; grep -E '^(Uid|Gid|Groups)' /proc/self/status; touch /tmp/mine && stat -c '%u %g' /tmp/mine; cat /secret/program >/dev/null`,
		}
	}
	all := []test{
		quick(as("alice")), as("1000"), as("alice:staff"), as("alice:4711"), as("1000:1000"), quick(as("4711")), as("4711:4712"), as(":staff"),
		as("nohome"), as("1234"), as("nogroup"), as("root:root"), as("alice:"),
		{name: "groups added", flags: flags("-u", "alice", "--group-add", "4711", "--group-add", "nohome"), script: `id`},
		{name: "working directory of another's", flags: flags("-u", "alice", "-w", "/made/for/alice"), script: `pwd; stat -c '%A %u %g' .; touch x`},
		{name: "working directory that may not be entered", flags: flags("-u", "alice", "-w", "/secret"), argv: []string{"pwd"}},
		{name: "a program that may not be run", flags: flags("-u", "alice"), argv: []string{"/secret/program"}},
		{name: "a program for root alone", flags: flags("-u", "alice"), argv: []string{"/bin/elsewhere"}},
	}
	for _, user := range []string{"nosuch", "alice:nosuch", "huge", "4294967294", "-1", "2147483648"} {
		all = append(all, test{name: "user " + user, flags: flags("-u", user), argv: []string{"id"}, quick: user == "nosuch"})
	}
	return append(all, test{name: "group added that is not there", flags: flags("--group-add", "nosuch"), argv: []string{"id"}})
}

// ends are the ways that commands end, or do not begin.
func ends() []test {
	own := func(name string, argv ...string) test { return test{name: name, argv: argv} }
	return []test{
		own("true", "true"),
		quick(own("exit code", "sh", "-c", "echo out; echo err >&2; exit 42")),
		own("exit code 125", "sh", "-c", "exit 125"),
		quick(own("not in PATH", "nosuch", "arg")),
		own("not there", "/bin/nosuch"),
		quick(own("not executable", "/etc/no-x-bit")),
		own("a folder", "/etc"),
		own("below a file", "/etc/passwd/x"),
		own("no words", ""),
		own("relative", "bin/echo", "hi"),
		{name: "relative to the working directory", flags: flags("-w", "/bin"), argv: []string{"./echo", "hi"}},
		own("script", "script", "a b", "", "c"),
		own("not a program", "/bin/not-a-program"),
		own("no interpreter", "/bin/no-interpreter"),
		own("no shebang", "/bin/no-shebang"),
		own("empty file", "/bin/empty"),
		{name: "PATH given", flags: flags("-e", "PATH=/usr/bin"), argv: []string{"echo", "hi"}},
		{name: "stdin", flags: flags("-i"), argv: []string{"sh", "-c", "read a; echo got $a; cat | wc -c; echo err >&2"}, stdin: "line\nsecond\nthird", quick: true},
		{name: "stdin not wanted", argv: []string{"sh", "-c", "cat; readlink /proc/self/fd/0"}, stdin: "not for it"},
		{name: "terminal", flags: flags("-t"), argv: []string{"sh", "-c", "tty; test -t 0 && test -t 1 && test -t 2 && echo all; echo $TERM; stat -c '%A %u %g' $(tty); ls -l /dev/console | cut -c1-10; cat /proc/self/stat | cut -d' ' -f7; exit 3"}, quick: true},
		{name: "terminal of alice", flags: flags("-t", "-u", "alice"), argv: []string{"sh", "-c", "echo hi >/dev/tty; stat -c '%A %U' $(tty); id -u"}},
		{name: "signal to itself", argv: []string{"sh", "-c", "sh -c 'kill -TERM $$'; echo $?; trap 'echo trapped; exit 9' TERM; kill -TERM $$; sleep 5"}},
		{name: "much output", argv: []string{"sh", "-c", "seq 1 200000; seq 1 1000 >&2"}},
		{name: "no newline", argv: []string{"printf", "%s", "no newline"}},
		{name: "binary output", argv: []string{"printf", `\000\377\r\n\033[0m`}},
		{name: "left behind", argv: []string{"sh", "-c", "(sleep 30; echo late) & echo first"}},
		{name: "working directory is a file", flags: flags("-w", "/etc/passwd"), argv: []string{"pwd"}, quick: true},
		{name: "working directory is relative", flags: flags("-w", "relative"), argv: []string{"pwd"}},
		{name: "entrypoint", flags: flags("--entrypoint", "echo"), argv: []string{"hi", "there"}},
		{name: "entrypoint taken away", image: "entry-cmd", flags: flags("--entrypoint", ""), argv: []string{"echo", "mine"}},
		{name: "entrypoint taken away, and nothing else", image: "entry-cmd", flags: flags("--entrypoint", "")},
		{name: "entrypoint for another's command", image: "entry-cmd", flags: flags("--entrypoint", "echo")},
	}
}

// images are what images ask for.
func images() []test {
	var all []test
	for _, image := range []string{
		"entry-cmd", "entry", "cmd", "nothing", "shell-form", "entry-missing", "env", "workdir", "workdir-there",
		"user-name", "user-number", "user-group", "user-numbers", "user-unknown", "user-like-number", "user-nohome",
	} {
		all = append(all, test{name: "image " + image, image: image, quick: image == "entry-cmd" || image == "env" || image == "user-group"})
	}
	odd := func(name, script string) test { return test{name: name, image: "odd", script: script, quick: true} }
	return append(all,
		test{name: "image entry-cmd with a command", image: "entry-cmd", argv: []string{"mine"}},
		test{name: "image user-name as root", image: "user-name", flags: flags("-u", "root"), argv: []string{"id"}},
		test{name: "distroless", image: "distroless", quick: true},
		test{name: "distroless looked at", image: "distroless", flags: flags("--hostname", "box"), argv: []string{"sh", "-c", "export PATH=/app; b=/app/busybox; $b pwd; $b id; $b cat /etc/hosts /etc/hostname; $b stat -c '%A %u %g %n' /* /etc/*"}},
		odd("odd files", `cd /odd; for f in *; do stat -c '%A %u %g %h %N' "$f"; done; stat -c '%s %n' sparse kept; cd /; stat -c '%A %u %g %n' /odd/*/*`),
		odd("odd contents", `cd /odd; cat kept linked-2 link-to-file dir-to-file/* file-to-dir/* gone-dir/* opaque/* changed/* no-mode file-to-link up long-link n* raw* spaces* 2>&1; cat long/*/*/*/*/*/*/*/file`),
		odd("odd times", `cd /odd; stat -c '%y %n' kept linked-2 attributed fifo dangling sparse`),
		odd("sparse", `md5sum /odd/sparse; [ $(stat -c %b /odd/sparse) -lt 200000 ] && echo not larger than it is`),
		odd("devices of the image", `echo x >/odd/null && echo written; cat /odd/null; cat /odd/disk; [ -p /odd/fifo ] && echo fifo`),
		odd("odd writes", `cd /odd; echo x >>linked; stat -c '%h %s %n' linked linked-2; chmod 600 setuid; stat -c %A setuid; rm linked-2; stat -c %h linked; rm -r opaque && mkdir opaque && ls opaque; mv changed moved; ls moved; echo y >sparse; stat -c %s sparse`),
		test{name: "setuid", image: "odd", flags: flags("-u", "alice"), script: `cat /odd/no-mode; cat /odd/kept; ls /odd/gone-dir /odd/file-to-dir`},
		test{name: "volumes of the image", quick: true, image: "volumes", flags: flags("--read-only", "--hostname", "box"), script: `stat -c '%A %u %g %n' /data /data/* /new /new/volume; echo x >/data/new && echo written; echo x >/new/volume/new && echo written; echo x >/new/x; ls /data`},
		test{name: "linked files", quick: true, image: "linked", flags: flags("--hostname", "box"), script: `cat /etc/hosts /etc/hostname; grep -c . /etc/resolv.conf; readlink /etc/resolv.conf /etc/hosts /etc/hostname /etc/mtab; ls -l /run/systemd/resolve | tail -n +2 | wc -l`},
	)
}
