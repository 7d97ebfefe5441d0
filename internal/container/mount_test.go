package container

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// String is a mount as the tests write it.
func (m Mount) String() string {
	text := fmt.Sprintf("%s %s>%s", m.Kind, m.Source, m.Target)
	if m.ReadOnly {
		text += " ro"
	}
	if m.Make {
		text += " make"
	}
	if m.Options != "" {
		text += " " + m.Options
	}
	return text
}

// tries parses texts; those that want "" must fail, and say what was given.
func tries(t *testing.T, parse func(string) (Mount, error), flag string, wants map[string]string) {
	t.Helper()
	for text, want := range wants {
		m, err := parse(text)
		if want == "" {
			require.Error(t, err, text)
			require.ErrorContains(t, err, fmt.Sprintf("%s %q: ", flag, text))
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, m.String(), text)
	}
}

// TestParseVolume has what docker 28 with a daemon 20.10 was seen to do.
func TestParseVolume(t *testing.T) {
	tries(t, ParseVolume, "--volume", map[string]string{
		"/data":             "volume >/data",
		"/h:/x":             "bind /h>/x make",
		"/h:/x:ro":          "bind /h>/x ro make",
		"/h:/x:rw":          "bind /h>/x make",
		"/h:/x:ro,z":        "bind /h>/x ro make",
		"/h:/x:Z,cached":    "bind /h>/x make",
		"/h:/x:rprivate":    "bind /h>/x make",
		"./h:/x":            "bind ./h>/x make",
		".:/x":              "bind .>/x make",
		"../h:/x/../y/":     "bind ../h>/y make",
		"data:/x":           "volume data>/x",
		"data:/x:ro":        "volume data>/x ro",
		"data:/x:nocopy,ro": "volume data>/x ro",
		"/h,1:/x":           "bind /h,1>/x make",
		"a/b:/x":            "", "a:/x": "", "x y:/x": "", "~/x:/x": "", "-x:/x": "",
		"/x:/x:/x": "", "/x:/x:foo": "", "/x:/x:ro,rw": "", "/x:/x:ro:rw": "", "/x:x": "", "data:x": "", "data": "", "./x": "", ".": "",
		"/h:/": "", "/": "", "/h:/..": "", ":/x": "", "/x:": "", "": "", ":": "", "/x:/x:nocopy": "", "/x:/x:rshared": "", "/x:/x:slave": "",
		"/x:/x:ro,ro": "", "/x\x00:/y": "", "/x:/y\x00": "",
	})
}

// TestParseMount, too.
func TestParseMount(t *testing.T) {
	const defaults = " noexec,nosuid,nodev"
	tries(t, ParseMount, "--mount", map[string]string{
		"type=bind,src=/h,dst=/x":                           "bind /h>/x",
		"type=bind,source=/h,target=/x,readonly":            "bind /h>/x ro",
		"TYPE=bind,SRC=/h,Destination=/x":                   "bind /h>/x",
		"type=bind,src=/h,dst=/x,ro=true":                   "bind /h>/x ro",
		"type=bind,src=/h,dst=/x,readonly=1":                "bind /h>/x ro",
		"type=bind,src=/h,dst=/x,readonly=false":            "bind /h>/x",
		"type=bind,src=./h,dst=/x":                          "bind ./h>/x",
		`type=bind,"src=/a,b",dst=/x`:                       "bind /a,b>/x",
		"type=bind,src=/h,src=/i,dst=/x":                    "bind /i>/x",
		"type=bind,src=/h,dst=/x,consistency=cached":        "bind /h>/x",
		"type=bind,src=/h,dst=/x,bind-propagation=rprivate": "bind /h>/x",
		"type=bind,src=/h:i,dst=/x,bind-nonrecursive":       "bind /h:i>/x",
		"src=data,dst=/x":                                   "volume data>/x",
		"type=volume,dst=/x":                                "volume >/x",
		"type=volume,src=data,dst=/x,volume-nocopy":         "volume data>/x",
		"type=volume,src=data,dst=/x,volume-driver=local":   "volume data>/x",
		"type=tmpfs,dst=/x":                                 "tmpfs >/x" + defaults,
		"type=tmpfs,dst=/x,tmpfs-size=64m,tmpfs-mode=1770":  "tmpfs >/x" + defaults + ",size=67108864,mode=1770",
		"type=tmpfs,dst=/x,readonly":                        "tmpfs >/x ro" + defaults + ",ro",
		"src=/h,dst=/x":                                     "", "type=bind,src=sub,dst=/x": "", "type=bind,src=/h,dst=/x,readonly=foo": "",
		"type=tmpfs,src=/y,dst=/x": "", "vv": "", "src=vv": "", "type=foo,dst=/x": "", "type=bind,dst=/x": "", "type=bind,src=/h,dst=x": "",
		"type=bind,src=/h,dst=/x,bind-propagation=rslave": "", "type=bind,src=/h,dst=/x,foo=1": "", "type=bind,src=/h,dst=/x,foo": "",
		"": "", ",": "", "type=tmpfs,dst=/x,tmpfs-size=1x": "", "type=tmpfs,dst=/x,tmpfs-mode=9": "", "type=image,src=bb,dst=/x": "",
		"type=bind,src=/h,dst=/": "", " type=bind,src=/h,dst=/x": "", "type=volume,src=vv,dst=/x,volume-driver=nfs": "",
		"type=volume,dst=/x,volume-opt=type=nfs": "", "type=bind,src=/h,dst=/x,tmpfs-size=1m": "", "type=tmpfs,dst=/x,volume-nocopy": "",
		"type=bind,src,dst=/x": "", "type=bind,src=/h,dst=/x\ntype=bind": "", `type=bind,"src=/h`: "",
	})
}

// TestParseTmpfs, too.
func TestParseTmpfs(t *testing.T) {
	const defaults = "noexec,nosuid,nodev"
	tries(t, ParseTmpfs, "--tmpfs", map[string]string{
		"/x":                          "tmpfs >/x " + defaults,
		"/x:":                         "tmpfs >/x " + defaults,
		"/x/:size=64m":                "tmpfs >/x " + defaults + ",size=64m",
		"/x:size=1,size=2":            "tmpfs >/x " + defaults + ",size=2",
		"/x:rw,exec,size=1g,mode=700": "tmpfs >/x nosuid,nodev,rw,exec,size=1g,mode=700",
		"/x:noexec,exec":              "tmpfs >/x nosuid,nodev,exec",
		"/x:exec,noexec":              "tmpfs >/x nosuid,nodev,noexec",
		"/x:ro,uid=5,gid=6":           "tmpfs >/x ro " + defaults + ",ro,uid=5,gid=6",
		"/x:ro,rw":                    "tmpfs >/x " + defaults + ",rw",
		"/x:size=50%,nr_inodes=100":   "tmpfs >/x " + defaults + ",size=50%,nr_inodes=100",
		"x":                           "", "/x:foo": "", "/x:size": "", "/x:size=": "", "/": "", "": "", "/x:size=1k:z": "", "/x:mpol2=1": "",
	})
}

// whole is what every mount must be, whatever it was made from.
func whole(t *testing.T, m Mount) {
	require.True(t, path.IsAbs(m.Target))
	require.Equal(t, path.Clean(m.Target), m.Target)
	require.NotEqual(t, "/", m.Target)
	require.False(t, strings.ContainsRune(m.Source+m.Target+m.Options, 0))
	switch m.Kind {
	case Bind:
		require.Contains(t, []byte("/."), m.Source[0])
	case Volume:
		require.False(t, strings.ContainsAny(m.Source, "/"), "it is below a folder of husk's")
		require.NotContains(t, []string{".", ".."}, m.Source)
	case Tmpfs:
		require.Empty(t, m.Source)
	default:
		require.Fail(t, "kind", m.Kind)
	}
}

func FuzzParseVolume(f *testing.F) {
	for _, seed := range []string{"/data", "/h:/x:ro", "./h:/x", "data:/x:ro,nocopy", "/h:/x:z"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := ParseVolume(text); err == nil {
			whole(t, m)
		}
	})
}

func FuzzParseMount(f *testing.F) {
	for _, seed := range []string{"type=bind,src=/h,dst=/x,readonly", "type=tmpfs,dst=/x,tmpfs-size=64m,tmpfs-mode=1770", "src=data,dst=/x", `type=bind,"src=/a,b",dst=/x`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := ParseMount(text); err == nil {
			whole(t, m)
		}
	})
}

func FuzzParseTmpfs(f *testing.F) {
	for _, seed := range []string{"/x", "/x:rw,exec,size=1g,mode=700", "/x:ro,uid=5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := ParseTmpfs(text); err == nil {
			whole(t, m)
			require.Equal(t, m.ReadOnly, strings.Contains(","+m.Options+",", ",ro,"))
		}
	})
}
