package agent

import (
	"io"
	"strings"
	"testing"

	"github.com/moby/sys/user"
	"github.com/stretchr/testify/require"
)

const (
	somePasswd = "root:x:0:0:root:/root:/bin/sh\n# a comment\nbroken\nweb:x:33:33::/var/www:/bin/false\n1001:x:7:7::/seven:\n"
	someGroup  = "root:x:0:\nweb:x:33:\nlogs:x:44:web,other\nmail:x:45:web\ndisk:x:6:root\n"
)

// TestFindUser: as Docker does it, by the same library.
func TestFindUser(t *testing.T) {
	for _, tt := range []struct {
		who      string
		groups   []string
		uid, gid int
		sgids    []int
		home     string
		err      string
	}{
		{who: "", uid: 0, gid: 0, sgids: []int{6}, home: "/root"},
		{who: "web", uid: 33, gid: 33, sgids: []int{44, 45}, home: "/var/www"},
		{who: "33", uid: 33, gid: 33, sgids: []int{44, 45}, home: "/var/www"},
		{who: "web:mail", uid: 33, gid: 45, sgids: []int{}, home: "/var/www"},
		{who: "web:7", uid: 33, gid: 7, sgids: []int{}, home: "/var/www"},
		{who: "4000", uid: 4000, gid: 0, sgids: []int{}, home: "/"},
		{who: "4000:4001", uid: 4000, gid: 4001, sgids: []int{}, home: "/"},
		{who: ":mail", uid: 0, gid: 45, sgids: []int{}, home: "/root"},
		{who: "web", groups: []string{"disk", "99", "44"}, uid: 33, gid: 33, sgids: []int{44, 45, 6, 99}, home: "/var/www"},
		{who: "foo", err: "unable to find user foo: no matching entries in passwd file"},
		{who: "web:foo", err: "unable to find group foo: no matching entries in group file"},
		{who: "web", groups: []string{"foo"}, err: "unable to find group foo: no matching entries in group file"},
		{who: "web", groups: []string{"mail", ""}, err: "a further group has no name"},
	} {
		u, err := findUser(tt.who, tt.groups, strings.NewReader(somePasswd), strings.NewReader(someGroup))
		if tt.err != "" {
			require.EqualError(t, err, tt.err, tt.who)
			continue
		}
		require.NoError(t, err, tt.who)
		require.Equal(t, &user.ExecUser{Uid: tt.uid, Gid: tt.gid, Sgids: tt.sgids, Home: tt.home}, u, tt.who)
	}

	// A root without the files, as an image with one static program.
	u, err := findUser("65532:65532", []string{"12"}, nil, nil)
	require.NoError(t, err)
	require.Equal(t, &user.ExecUser{Uid: 65532, Gid: 65532, Sgids: []int{12}, Home: "/"}, u)
	u, err = findUser("", nil, nil, nil)
	require.NoError(t, err)
	require.Equal(t, &user.ExecUser{Sgids: []int{}, Home: "/"}, u)
	_, err = findUser("foo", nil, nil, nil)
	require.EqualError(t, err, "unable to find user foo: no matching entries in passwd file")
}

func FuzzFindUser(f *testing.F) {
	f.Add("web:mail", "disk", somePasswd, someGroup)
	f.Add("4000", "99", somePasswd, "")
	f.Fuzz(func(t *testing.T, who, more, passwd, group string) {
		for _, files := range [][2]io.Reader{{strings.NewReader(passwd), strings.NewReader(group)}, {nil, nil}} {
			u, err := findUser(who, []string{more}, files[0], files[1])
			if err != nil {
				continue
			}
			c := credential(u)
			require.EqualValues(t, u.Uid, c.Uid)
			require.EqualValues(t, u.Gid, c.Gid)
			require.EqualValues(t, u.Gid, c.Groups[0])
			require.LessOrEqual(t, len(c.Groups), 1+len(u.Sgids))
		}
	})
}
