package grub

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/boot/diskboot/bls"
)

// A fakeDisk has texts by their paths: "(hd0,gpt1)/boot/grub/grub.cfg".
type fakeDisk struct {
	files   map[string]string
	volumes map[string]string // UUID or label → device
	entries map[string][]bls.Entry
}

func (d fakeDisk) ReadFile(p Path) ([]byte, error) {
	if text, ok := d.files[p.String()]; ok {
		return []byte(text), nil
	}
	return nil, fs.ErrNotExist
}

func (d fakeDisk) Stat(p Path) (int64, bool, bool) {
	text, ok := d.files[p.String()]
	for name := range d.files {
		if strings.HasPrefix(name, p.String()+"/") {
			return 0, true, true
		}
	}
	return int64(len(text)), false, ok
}

func (d fakeDisk) Search(by Key, value string) (string, bool) {
	if by == ByFile {
		for name := range d.files {
			if device, ok := strings.CutSuffix(name, ")"+value); ok {
				return device[1:], true
			}
		}
		return "", false
	}
	device, ok := d.volumes[value]
	return device, ok
}

func (d fakeDisk) Entries(p Path) []bls.Entry { return d.entries[p.String()] }

func config(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(path.Join("testdata", name))
	require.NoError(t, err)
	return string(text)
}

const env = "# GRUB Environment Block\n"

func linux(device, file, cmdline string, initrds ...string) Kernel {
	k := Kernel{Linux: Path{device, file}, CommandLine: cmdline}
	for _, i := range initrds {
		k.Initrds = append(k.Initrds, Path{device, i})
	}
	return k
}

// first is what a menu boots by default.
func first(t *testing.T, d fakeDisk, file Path) (string, Kernel) {
	t.Helper()
	m, err := Load(d, file)
	require.NoError(t, err)
	all := m.Default()
	require.NotEmpty(t, all)
	k, _, ok, err := m.Boot(all[0])
	require.NoError(t, err)
	require.True(t, ok)
	return all[0].Title, k
}

func TestDebian(t *testing.T) {
	cfg := Path{"hd0,gpt1", "/boot/grub/grub.cfg"}
	d := fakeDisk{
		files:   map[string]string{cfg.String(): config(t, "debian12.cfg")},
		volumes: map[string]string{"11111111-aaaa-4bbb-8ccc-222222222222": "hd0,gpt7"},
	}
	const id = "11111111-aaaa-4bbb-8ccc-222222222222"
	newest := linux("hd0,gpt7", "/boot/vmlinuz-6.1.0-26-amd64", "root=UUID="+id+" ro quiet", "/boot/initrd.img-6.1.0-26-amd64")
	title, k := first(t, d, cfg)
	require.Equal(t, "Debian GNU/Linux", title)
	require.Equal(t, newest, k)

	older := linux("hd0,gpt7", "/boot/vmlinuz-6.1.0-25-amd64", "root=UUID="+id+" ro quiet", "/boot/initrd.img-6.1.0-25-amd64")
	for _, choice := range []string{
		"1>2", "gnulinux-advanced-" + id + ">gnulinux-6.1.0-25-amd64-advanced-" + id,
		"Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-25-amd64",
	} {
		d.files["(hd0,gpt1)/boot/grub/grubenv"] = env + "next_entry=" + choice + "\n####"
		title, k = first(t, d, cfg)
		require.Equal(t, "Debian GNU/Linux, with Linux 6.1.0-25-amd64", title, choice)
		require.Equal(t, older, k)
	}
	d.files["(hd0,gpt1)/boot/grub/grubenv"] = env + "next_entry=1\n"
	title, _ = first(t, d, cfg)
	require.Equal(t, "Debian GNU/Linux, with Linux 6.1.0-26-amd64", title, "a submenu's first")
	d.files["(hd0,gpt1)/boot/grub/grubenv"] = env + "next_entry=nothing\n"
	title, _ = first(t, d, cfg)
	require.Equal(t, "Debian GNU/Linux", title, "what is not there")

	d.files["(hd0,gpt1)/boot/grub/custom.cfg"] = "set default=own\nmenuentry Own --id own { set root=hd0,gpt2; linux (hd0,gpt3)/k a; initrd /i }"
	delete(d.files, "(hd0,gpt1)/boot/grub/grubenv")
	title, k = first(t, d, cfg)
	require.Equal(t, "Own", title)
	require.Equal(t, Kernel{Path{"hd0,gpt3", "/k"}, []Path{{"hd0,gpt2", "/i"}}, "a"}, k)

	m, err := Load(d, cfg)
	require.NoError(t, err)
	require.Len(t, m.Default(), 5)
	d.volumes = nil
	m, err = Load(d, cfg)
	require.NoError(t, err)
	k, notes, ok, err := m.Boot(m.Default()[1])
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "hd0,gpt1", k.Linux.Device, "what set root= said")
	require.Contains(t, notes[0], "search finds nothing")
}

func TestUbuntu(t *testing.T) {
	cfg := Path{"hd0,gpt16", "/grub/grub.cfg"}
	d := fakeDisk{
		files:   map[string]string{cfg.String(): config(t, "ubuntu2404.cfg"), "(hd0,gpt16)/grub/gfxblacklist.txt": "x"},
		volumes: map[string]string{"55555555-aaaa-4bbb-8ccc-666666666666": "hd0,gpt16"},
	}
	title, k := first(t, d, cfg)
	require.Equal(t, "Ubuntu", title)
	want := linux("hd0,gpt16", "/vmlinuz-6.8.0-45-generic", "root=LABEL=cloudimg-rootfs ro console=tty1 console=ttyS0",
		"/microcode.cpio", "/initrd.img-6.8.0-45-generic")
	require.Equal(t, want, k)
	delete(d.files, "(hd0,gpt16)/grub/gfxblacklist.txt")
	_, k = first(t, d, cfg)
	require.Equal(t, want.CommandLine+" vt.handoff=7", k.CommandLine, "a function sets a variable")

	d.files["(hd0,gpt16)/grub/grubenv"] = env + "prev_entry=1>0\n"
	_, k = first(t, d, cfg)
	require.Equal(t, `root=LABEL=cloudimg-rootfs ro init=/bin/sh -c "x" "foo=a b" $HOME`, k.CommandLine)
}

func TestFedora(t *testing.T) {
	cfg := Path{"hd0,gpt3", "/grub2/grub.cfg"}
	parse := func(id, version string) bls.Entry {
		return bls.Parse(id+".conf", fmt.Appendf(nil, "title Fedora Linux (%s) 41 (Cloud Edition)\nversion %[1]s\nlinux /vmlinuz-%[1]s\ninitrd /initramfs-%[1]s.img $tuned_initrd\noptions $kernelopts x=$unknown cost=5$\n", version))
	}
	d := fakeDisk{
		files:   map[string]string{cfg.String(): config(t, "fedora41.cfg"), "(hd0,gpt3)/grub2/grubenv": env + "saved_entry=m-6.11.4\nkernelopts=root=LABEL=x ro\n"},
		volumes: map[string]string{"55555555-aaaa-4bbb-8ccc-666666666666": "hd0,gpt3"},
		entries: map[string][]bls.Entry{"(hd0,gpt3)/loader/entries": {parse("m-6.11.5", "6.11.5-300.fc41"), parse("m-6.11.4", "6.11.4-301.fc41"), parse("m-0-rescue", "0-rescue-m")}},
	}
	title, k := first(t, d, cfg)
	require.Equal(t, "Fedora Linux (6.11.4-301.fc41) 41 (Cloud Edition)", title)
	require.Equal(t, linux("hd0,gpt3", "/vmlinuz-6.11.4-301.fc41", "root=LABEL=x ro x= cost=5$", "/initramfs-6.11.4-301.fc41.img"), k)

	delete(d.files, "(hd0,gpt3)/grub2/grubenv")
	_, k = first(t, d, cfg)
	require.Equal(t, "root=UUID=77777777-aaaa-4bbb-8ccc-888888888888 ro rootflags=subvol=root x= cost=5$", k.CommandLine)
	require.Equal(t, "/vmlinuz-6.11.5-300.fc41", k.Linux.File)
}

// run is what a script leaves in the variable x.
func run(t *testing.T, script string) string {
	t.Helper()
	p := Path{"hd0,1", "/grub/grub.cfg"}
	m, err := Load(fakeDisk{files: map[string]string{p.String(): script, "(hd0,1)/dir/file": "abc", "(hd0,1)/empty": ""}}, p)
	require.NoError(t, err)
	return m.run.vars["x"]
}

func TestLanguage(t *testing.T) {
	for script, want := range map[string]string{
		`set x=a`:                   "a",
		`x=a`:                       "a",
		`set x='a b'`:               "a b",
		`set x="a b"`:               "a b",
		`set x=a\ b`:                "a b",
		`set x='a\b'`:               `a\b`,
		`set x="a\$b\"\\\q"`:        `a$b"\\q`,
		"set x=a\\\nb":              "ab",
		"set x=a # c":               "a",
		"set x=a#c":                 "a#c",
		`y=1; set x=$y${y}"$y"'$y'`: "111$y",
		`y="1 2"; set x="$y"`:       "1 2",
		`y="1 2"; set x=$y`:         "1",
		`set x=$`:                   "$",
		`set x=1; unset x`:          "",
		`if true; then set x=1; fi`: "1",
		`if false; then set x=1; else set x=2; fi`:                                         "2",
		`if false; then x=1; elif true; then x=2; else x=3; fi`:                            "2",
		`if ! false; then x=1; fi`:                                                         "1",
		`if [ a = a -a b != b -o c = c ]; then x=1; fi`:                                    "1",
		`if [ ! ( a = b ) ]; then x=1; fi`:                                                 "1",
		`if [ 10 -gt 9 -a -1 -lt 0 ]; then x=1; fi`:                                        "1",
		`if [ "" ]; then x=1; fi`:                                                          "",
		`if [ ]; then x=1; fi`:                                                             "",
		`if [ -z "" -a -n a ]; then x=1; fi`:                                               "1",
		`if [ -f /dir/file -a -d /dir -a -s (hd0,1)/dir/file -a -e /empty ]; then x=1; fi`: "1",
		`if [ -s /empty -o -f /dir -o -e /nothing ]; then x=1; fi`:                         "",
		`if test -n a; then x=1; fi`:                                                       "1",
		`function f { set x="$1-$2-$#-$@"; return; set x=no; }; f a "b c"`:                 "a-b c-2-a b c",
		`for i in a b c; do x="$x$i"; done`:                                                "abc",
		`while true; do x=1; done; y=2`:                                                    "",
		`search --file --set=x /dir/file`:                                                  "hd0,1",
		`search -f /dir/file --set x`:                                                      "", // sets root to what is found
		`search.file /dir/file x`:                                                          "hd0,1",
		`if search --label nothing; then x=1; fi`:                                          "",
		`x=1 && x=2`: "2",
	} {
		require.Equal(t, want, run(t, script), script)
	}
}

func TestBadScripts(t *testing.T) {
	p := Path{"hd0,1", "/grub/grub.cfg"}
	deep := strings.Repeat("submenu a {\n", 100) + strings.Repeat("}\n", 100)
	for name, script := range map[string]string{
		"open block": "menuentry a {", "open if": "if true; then", "no then": "if true; fi", "stray": "}", "deep": deep,
		"long": strings.Repeat("#", maxScript+1), "recursion": "function f { f; }; f", "itself": "source /grub/grub.cfg",
		"doubling":     "x=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n" + strings.Repeat("x=\"$x$x\"\n", 40),
		"steps":        "function f { g; g; g; g; }; function g { h; h; h; h; }; function h { i; i; i; i; }; function i { j; j; j; j; }; function j { k; k; k; k; }; function k { l; l; l; l; }; function l { m; m; m; m; }; function m { n; n; n; n; }; function n { true; true; }; f; f",
		"sum of lines": "x=" + strings.Repeat("a", 60000) + "\nfor i in" + strings.Repeat(" b", 300) + "; do y=$x; done",
	} {
		_, err := Load(fakeDisk{files: map[string]string{p.String(): script}}, p)
		require.ErrorIs(t, err, ErrScript, name)
	}
	_, err := Load(fakeDisk{}, p)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func FuzzLoad(f *testing.F) {
	for _, name := range []string{"debian12.cfg", "ubuntu2404.cfg", "fedora41.cfg"} {
		f.Add(config(f, name), "next_entry=1>2\nsaved_entry=a\n")
	}
	f.Add("function f { for i in a $@; do f $i; done; }; f b", "x=$x")
	f.Add("submenu a { menuentry \"b\" --id=c { linux /k \"a b\" $x; initrd /i } }; set default=a>c", "x='")
	p := Path{"hd0,gpt1", "/grub/grub.cfg"}
	f.Fuzz(func(t *testing.T, script, grubenv string) {
		d := fakeDisk{
			files:   map[string]string{p.String(): script, "(hd0,gpt1)/grub/grubenv": grubenv},
			volumes: map[string]string{"a": "hd0,gpt1"},
			entries: map[string][]bls.Entry{"(hd0,gpt1)/loader/entries": {{ID: "a", Linux: "/$x", Options: "$x y"}}},
		}
		m, err := Load(d, p)
		if err != nil {
			return
		}
		for _, e := range m.Default() {
			k, _, ok, err := m.Boot(e)
			require.False(t, ok && err != nil)
			if ok {
				require.True(t, strings.HasPrefix(k.Linux.File, "/"))
			}
		}
	})
}
