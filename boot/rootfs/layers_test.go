package rootfs

import (
	"archive/tar"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func xattr(name, value string) func(*tar.Header) {
	return func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr." + name: value} }
}

func owned(uid, gid int) func(*tar.Header) {
	return func(h *tar.Header) { h.Uid, h.Gid = uid, gid }
}

func mode(m int64) func(*tar.Header) { return func(h *tar.Header) { h.Mode = m } }

func at(when time.Time) func(*tar.Header) {
	return func(h *tar.Header) { h.ModTime, h.Format = when, tar.FormatPAX }
}

func special(name string, kind byte, major, minor int64) entry {
	return entry{tar.Header{Name: name, Typeflag: kind, Mode: 0o644, Devmajor: major, Devminor: minor}, ""}
}

// acl lets user 5 read, write and execute, whatever the mode says (kernel
// include/uapi/linux/posix_acl_xattr.h).
const acl = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x07\x00\x05\x00\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"

type tree = map[string]string

// A layered is layers, and what becomes of them.
type layered struct {
	layers [][]entry
	want   tree
}

func allLayered() map[string]layered {
	long := strings.Repeat("n", 255)
	far := strings.Repeat(long[:250]+"/", 16) + "x"
	return map[string]layered{
		"nothing":                 {nil, tree{}},
		"empty layers":            {[][]entry{{}, {}}, tree{}},
		"a file":                  {[][]entry{{file("a", "hello")}}, tree{"a": `file "hello"`}},
		"the root's attributes":   {[][]entry{{dir("./", 0o1700).with(owned(5, 6)), file("a", "")}}, tree{".": "dir 1700 5:6", "a": `file ""`}},
		"names cleaned":           {[][]entry{{file("./a", "1"), file("/b", "2"), file("../../c", "3"), file("x/../d", "4"), file("y//e", "5"), file("./../f", "6")}}, tree{"a": `file "1"`, "b": `file "2"`, "c": `file "3"`, "d": `file "4"`, "y/e": `file "5"`, "f": `file "6"`}},
		"the last duplicate wins": {[][]entry{{file("a", "1"), file("./a", "2"), dir("d", 0o700), file("d/x", ""), dir("d/", 0o750)}}, tree{"a": `file "2"`, "d": "dir 750", "d/x": `file ""`}},
		"types":                   {[][]entry{{special("c", tar.TypeChar, 1, 3), special("b", tar.TypeBlock, 259, 0x12345), special("p", tar.TypeFifo, 0, 0), link("l", "nowhere/at all")}}, tree{"c": "char 259", "b": "block 305201989", "p": "fifo", "l": "-> nowhere/at all"}},
		"modes":                   {[][]entry{{file("a", "").with(mode(0o4755)), file("b", "").with(mode(0o2000)), dir("c", 0o3777), file("d", "").with(mode(0o100600))}}, tree{"a": `file "" 4755`, "b": `file "" 2000`, "c": "dir 3777", "d": `file "" 600`}},
		"owners":                  {[][]entry{{file("a", "").with(owned(4294967294, 100000)), link("l", "a").with(owned(1, 2))}}, tree{"a": `file "" 4294967294:100000`, "l": "-> a 1:2"}},
		"times": {[][]entry{{
			file("a", "").with(at(time.Unix(-5, 250))), file("b", "").with(at(time.Unix(1<<33, 999999999))), dir("d", 0o755).with(at(time.Unix(7, 0))), file("d/x", ""),
		}}, tree{"a": `file "" @-5.000000250`, "b": `file "" @8589934592.999999999`, "d": "dir @7.000000000", "d/x": `file ""`}},
		"long names":    {[][]entry{{file(long, "1"), file(far, "2"), link("l", strings.Repeat("t", 4095)), link("m", strings.Repeat("u", 3000)), file("gnu/"+long, "3").with(func(h *tar.Header) { h.Format = tar.FormatGNU })}}, tree{long: `file "1"`, far: `file "2"`, "l": "-> " + strings.Repeat("t", 4095), "m": "-> " + strings.Repeat("u", 3000), "gnu/" + long: `file "3"`}},
		"implied above": {[][]entry{{dir("a", 0o700).with(owned(1, 1)), file("a/b/x", "")}, {file("a/b/y", ""), file("c/d/z", "")}}, tree{"a": "dir 700 1:1", "a/b/x": `file ""`, "a/b/y": `file ""`, "c/d/z": `file ""`}},

		"whiteout":                   {[][]entry{{file("a", ""), file("d/x", ""), file("d/y", "")}, {file(".wh.a", ""), file("d/.wh.x", "")}}, tree{"d/y": `file ""`}},
		"whiteout of a directory":    {[][]entry{{file("d/x/y", "")}, {file(".wh.d", "")}}, tree{}},
		"whiteout of nothing":        {[][]entry{{file("a", "")}, {file("d/.wh.x", ""), file(".wh.y", "")}}, tree{"a": `file ""`}},
		"whiteout before its file":   {[][]entry{{file("a", "1")}, {file(".wh.a", ""), file("a", "2")}}, tree{"a": `file "2"`}},
		"whiteout behind its file":   {[][]entry{{file("a", "1")}, {file("a", "2"), file(".wh.a", "")}}, tree{"a": `file "2"`}},
		"whiteout and a new folder":  {[][]entry{{file("d/x", "1")}, {dir("d", 0o700), file("d/y", ""), file(".wh.d", "")}}, tree{"d": "dir 700", "d/y": `file ""`}},
		"whiteout of its own layer":  {[][]entry{{file("a", "1"), file(".wh.a", "")}}, tree{"a": `file "1"`}},
		"whiteout with content":      {[][]entry{{file("a", "")}, {file(".wh.a", strings.Repeat("c", 5000)), file("b", "2")}}, tree{"b": `file "2"`}},
		"opaque":                     {[][]entry{{file("d/x", ""), file("d/e/y", "")}, {file("d/z", ""), file("d/.wh..wh..opq", "")}}, tree{"d/z": `file ""`}},
		"opaque keeps attributes":    {[][]entry{{dir("d", 0o711).with(owned(3, 3)), file("d/x", "")}, {file("d/.wh..wh..opq", "")}}, tree{"d": "dir 711 3:3"}},
		"opaque in opaque":           {[][]entry{{file("d/x", ""), file("d/e/y", "")}, {file("d/.wh..wh..opq", ""), file("d/e/.wh..wh..opq", ""), file("d/e/z", "")}, {file("d/e/.wh..wh..opq", ""), file("d/q", "")}}, tree{"d/q": `file ""`}},
		"opaque root":                {[][]entry{{file("a", "")}, {file(".wh..wh..opq", ""), file("b", "")}}, tree{"b": `file ""`}},
		"opaque in its first layer":  {[][]entry{{file("d/.wh..wh..opq", ""), file("d/x", "")}, {file("d/y", "")}}, tree{"d/x": `file ""`, "d/y": `file ""`}},
		"nothing left of whiteouts":  {[][]entry{{file("d/.wh.x", ""), file("d/y", "")}, {file("d/x", "")}}, tree{"d/x": `file ""`, "d/y": `file ""`}},
		"AUFS's files":               {[][]entry{{dir(".wh..wh.plnk", 0o700), file(".wh..wh.plnk/1.2", "x"), file(".wh..wh.aufs", ""), file("a", "1")}}, tree{"a": `file "1"`}},
		"a file becomes a directory": {[][]entry{{file("a", "1"), file("b", "2")}, {dir("a", 0o700), file("a/x", ""), file("b/y", "")}}, tree{"a": "dir 700", "a/x": `file ""`, "b/y": `file ""`}},
		"a directory becomes a file": {[][]entry{{file("a/x/y", "1")}, {file("a", "2")}}, tree{"a": `file "2"`}},
		"both in one layer":          {[][]entry{{file("a/x", "1"), file("a", "2"), file("b", "3"), dir("b", 0o700), file("b/x", "4")}}, tree{"a": `file "2"`, "b": "dir 700", "b/x": `file "4"`}},

		"a link in a path, same layer":                  {[][]entry{{dir("b", 0o700), link("a", "b"), file("a/x", "1"), link("c", "/a/."), file("c/y", "2"), link("out", "../../../b"), file("out/z", "3")}}, tree{"a": "-> b", "b": "dir 700", "b/x": `file "1"`, "b/y": `file "2"`, "b/z": `file "3"`, "c": "-> /a/.", "out": "-> ../../../b"}},
		"a link in a path, to below":                    {[][]entry{{dir("b", 0o700)}, {link("a", "b"), file("a/x", "1")}}, tree{"a": "-> b", "b": "dir 700", "b/x": `file "1"`}},
		"a link in a path, of below":                    {[][]entry{{dir("b", 0o700), link("a", "b")}, {file("a/x", "1")}}, tree{"b": "dir 700", "a/x": `file "1"`}},
		"a link replaced":                               {[][]entry{{link("a", "b"), file("b/x", "1")}, {dir("a", 0o700)}, {link("b", "a")}}, tree{"a": "dir 700", "b": "-> a"}},
		"a whiteout through a link":                     {[][]entry{{file("b/x", ""), file("b/y", "")}, {link("a", "b"), file("a/.wh.x", "")}}, tree{"a": "-> b", "b/y": `file ""`}},
		"hard links":                                    {[][]entry{{file("a", "1"), hard("b", "a"), hard("d/c", "./b"), hard("/e", "/d/c")}}, tree{"a": `file "1" links=4`, "b": `file "1" links=4`, "d/c": `file "1" links=4`, "e": `file "1" links=4`}},
		"a hard link to below":                          {[][]entry{{file("d/a", "1").with(mode(0o4711))}, {hard("b", "d/a")}}, tree{"d/a": `file "1" 4711 links=2`, "b": `file "1" 4711 links=2`}},
		"a hard link, its target replaced":              {[][]entry{{file("a", "1"), hard("b", "a"), hard("c", "a")}, {file("a", "2")}}, tree{"a": `file "2"`, "b": `file "1" links=2`, "c": `file "1" links=2`}},
		"a hard link, its target replaced in its layer": {[][]entry{{file("a", "1"), hard("b", "a"), file("a", "2")}}, tree{"a": `file "2"`, "b": `file "1"`}},
		"a hard link, its target removed":               {[][]entry{{file("a", "1"), hard("b", "a")}, {file(".wh.a", "")}}, tree{"b": `file "1"`}},
		"a hard link to what its layer removes":         {[][]entry{{file("a", "1")}, {file(".wh.a", ""), hard("b", "a")}}, tree{"b": `file "1"`}},
		"a hard link to a link":                         {[][]entry{{link("l", "x"), hard("m", "l")}}, tree{"l": "-> x links=2", "m": "-> x links=2"}},
		"a hard link to a device":                       {[][]entry{{special("c", tar.TypeChar, 1, 3), hard("d", "c")}}, tree{"c": "char 259 links=2", "d": "char 259 links=2"}},
		"a hard link through a link":                    {[][]entry{{file("d/x", "1"), link("l", "d")}, {hard("y", "l/x")}}, tree{"d/x": `file "1" links=2`, "l": "-> d", "y": `file "1" links=2`}},
		"a hard link through a link to below":           {[][]entry{{file("d/x", "1")}, {link("l", "d"), hard("y", "l/x")}}, tree{"d/x": `file "1" links=2`, "l": "-> d", "y": `file "1" links=2`}},
		"a hard link to itself":                         {[][]entry{{file("a", "1"), hard("a", "a")}}, tree{"a": `file "1"`}},
		"a hard link where its target was":              {[][]entry{{file("d/x", "1"), hard("d", "d/x")}}, tree{"d": `file "1"`}},

		"extended attributes": {[][]entry{{
			file("ping", "x").with(xattr("security.capability", "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")),
			file("u", "x").with(xattr("user.a", "")), dir("d", 0o755).with(xattr("trusted.t", strings.Repeat("v", 30))),
			file("acl", "x").with(xattr("system.posix_acl_access", acl)), link("l", "x").with(xattr("security.selinux", "label\x00")),
			file("no", "x").with(xattr("com.apple.quarantine", "1")), link("nor", "x").with(xattr("user.a", "1")), dir("over", 0o755).with(xattr("trusted.overlay.opaque", "y")),
		}}, tree{
			"ping": `file "x" security.capability="\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"`,
			"u":    `file "x" user.a=""`, "d": `dir trusted.t="` + strings.Repeat("v", 30) + `"`,
			"acl": `file "x" system.posix_acl_access=` + fmt.Sprintf("%q", acl), "l": `-> x security.selinux="label\x00"`, "no": `file "x"`, "nor": "-> x",
		}},
		"large extended attributes": {[][]entry{{file("a", strings.Repeat("c", 100)).with(xattr("user.big", strings.Repeat("v", 60000))), file("b", strings.Repeat("c", 127)).with(xattr("user.page", strings.Repeat("v", 4000)))}}, tree{
			"a": `file "cccccccccccccccccccc" user.big="` + strings.Repeat("v", 60000) + `"`, "b": `file "cccccccccccccccccccc" user.page="` + strings.Repeat("v", 4000) + `"`,
		}},
		"a link takes its target's attributes": {[][]entry{{file("a", "1").with(xattr("user.a", "1")), hard("b", "a").with(owned(7, 7))}}, tree{"a": `file "1" links=2 user.a="1"`, "b": `file "1" links=2 user.a="1"`}},
		"a global header":                      {[][]entry{{{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"comment": "x"}}, ""}, file("a", "1")}}, tree{"a": `file "1"`}},
	}
}

func TestBuild(t *testing.T) {
	for name, c := range allLayered() {
		t.Run(name, func(t *testing.T) {
			image, stats, err := build(t, layersOf(t, c.layers...)...)
			require.NoError(t, err)
			require.Equal(t, c.want, list(t, image))
			entries := 0
			for _, l := range c.layers {
				entries += len(l)
			}
			require.Equal(t, entries, stats.Entries)
		})
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]entry
		want   string
	}{
		"a hard link to nothing":       {[][]entry{{file("a", "")}, {hard("b/c", "no/where")}}, "layer 2 of 2: b/c: not a usable image layer: hard link to no/where: no: there is no such file"},
		"a hard link to a later file":  {[][]entry{{hard("b", "a"), file("a", "")}}, "b: not a usable image layer: hard link to a: there is no such file"},
		"a hard link to a directory":   {[][]entry{{dir("d", 0o755), hard("b", "d")}}, "hard link to d, which is a directory"},
		"a hard link to the root":      {[][]entry{{hard("b", "..")}}, `hard link to .., which is a directory`},
		"a file as a directory":        {[][]entry{{file("a", ""), file("a/b", "")}}, "a/b: not a usable image layer: a: not a directory"},
		"a loop of links":              {[][]entry{{link("a", "b"), link("b", "a"), file("a/x", "")}}, "more than 40 symbolic links"},
		"a link below itself":          {[][]entry{{link("a", "a/a/a/a"), file("a/x", "")}}, "more than 40 symbolic links"},
		"a long name":                  {[][]entry{{file(strings.Repeat("n", 256), "")}}, "a name of 256 bytes, at most 255"},
		"a long directory's name":      {[][]entry{{file(strings.Repeat("n", 256)+"/x", "")}}, "a name of 256 bytes, at most 255"},
		"a long whiteout":              {[][]entry{{file(".wh."+strings.Repeat("n", 256), "")}}, "a name of 256 bytes, at most 255"},
		"a long path":                  {[][]entry{{file(strings.Repeat("d/", 2048)+"x", "")}}, "a path of more than 4095 bytes"},
		"a path made long by links":    {[][]entry{{dir(strings.Repeat("d/", 1500), 0o755), link("l", strings.Repeat("d/", 1500)), file("l/"+strings.Repeat("d/", 600)+"x", "")}}, "a path of more than 4095 bytes"},
		"a whiteout of no name":        {[][]entry{{file("d/.wh.", "")}}, "a whiteout of no file"},
		"a whiteout of the directory":  {[][]entry{{file("d/.wh..", "")}}, "a whiteout of no file"},
		"a whiteout of the one above":  {[][]entry{{file("d/.wh...", "")}}, "a whiteout of no file"},
		"a root that is a file":        {[][]entry{{file("./", "").with(func(h *tar.Header) { h.Name = "." })}}, "the root can only be a directory"},
		"an owner of too many bits":    {[][]entry{{file("a", "").with(owned(4294967295, 0))}}, "owned by user 4294967295; Linux has 0 to 4294967294"},
		"a group of too many bits":     {[][]entry{{file("a", "").with(owned(0, 1<<40))}}, "owned by group 1099511627776"},
		"a negative owner":             {[][]entry{{file("a", "").with(owned(-1, 0))}}, "owned by user -1"},
		"a device of too many bits":    {[][]entry{{special("c", tar.TypeChar, 4096, 0)}}, "device 4096,0"},
		"a long target":                {[][]entry{{link("l", strings.Repeat("t", 4096))}}, "this one has 4096"},
		"an unknown type":              {[][]entry{{{tar.Header{Name: "v", Typeflag: 'V'}, ""}}}, `an entry of the unknown type 'V'`},
		"an attribute's name":          {[][]entry{{file("a", "").with(xattr("user."+strings.Repeat("n", 251), "1"))}}, "a name of 256 and a value of 1 bytes"},
		"an attribute's value":         {[][]entry{{file("a", "").with(xattr("user.a", strings.Repeat("v", 65536)))}}, "a value of 65536 bytes"},
		"too many extended attributes": {[][]entry{{file("a", "").with(func(h *tar.Header) { h.PAXRecords = manyXattrs })}}, "more than 262148 bytes of extended attributes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := build(t, layersOf(t, c.layers...)...)
			require.ErrorIs(t, err, ErrLayer)
			require.ErrorContains(t, err, c.want)
		})
	}
}

var manyXattrs = map[string]string{
	"SCHILY.xattr.user.1": strings.Repeat("v", 60000), "SCHILY.xattr.user.2": strings.Repeat("v", 60000),
	"SCHILY.xattr.user.3": strings.Repeat("v", 60000), "SCHILY.xattr.user.4": strings.Repeat("v", 60000),
	"SCHILY.xattr.user.5": strings.Repeat("v", 60000),
}
