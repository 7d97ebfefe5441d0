package machine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) *Machines {
	t.Helper()
	dir := t.TempDir()
	ms, err := Open(dir+"/run", dir+"/data")
	require.NoError(t, err)
	return ms
}

func create(t *testing.T, ms *Machines, s Spec) *Machine {
	t.Helper()
	m, err := ms.Create(t.Context(), s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func TestCreateAndFind(t *testing.T) {
	ms := open(t)
	list, err := ms.List()
	require.NoError(t, err)
	require.Empty(t, list)

	at := time.Now()
	one := create(t, ms, Spec{ID: strings.Repeat("a", 64), Name: "one", Created: at, Labels: map[string]string{"k": "v"}})
	two := create(t, ms, Spec{ID: "ab" + strings.Repeat("0", 62), Name: "aa", Created: at.Add(1)})
	three := create(t, ms, Spec{Created: at.Add(2)})
	require.Regexp(t, `^[a-z]+_[a-z]+$`, three.Name())
	require.Len(t, three.ID(), 64)

	list, err = ms.List()
	require.NoError(t, err)
	require.Len(t, list, 3)
	require.Equal(t, three.ID(), list[0].ID(), "the newest is the first")
	require.Equal(t, one.Spec().Labels, list[2].Spec().Labels)

	for name, want := range map[string]*Machine{"one": one, "aaa": one, one.ID(): one, "aa": two, "ab": two, two.ID(): two, three.Name(): three} {
		m, err := ms.Find(name)
		require.NoError(t, err, name)
		require.Equal(t, want.ID(), m.ID(), name)
	}
	_, err = ms.Find("a")
	require.ErrorIs(t, err, ErrAmbiguous)
	require.ErrorContains(t, err, "(one)")
	require.ErrorContains(t, err, "(aa)")
	for _, name := range []string{"", "none", "zzz"} {
		_, err = ms.Find(name)
		require.ErrorIs(t, err, ErrNotFound)
	}
	_, err = ms.Create(t.Context(), Spec{Name: "one"})
	require.ErrorIs(t, err, ErrNameTaken)
	_, err = ms.Create(t.Context(), Spec{ID: "short"})
	require.ErrorContains(t, err, "hexadecimal")

	s, err := one.State()
	require.NoError(t, err)
	require.Equal(t, State{Status: Created}, s)
	info, err := os.Stat(filepath.Join(one.Folder(), specFile))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm(), "an environment may have secrets in it")
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"ab": true, "a.b-c_d": true, "0x": true, "a": false, "": false, "-ab": false, "a b": false, "a/b": false, "../x": false,
		strings.Repeat("x", 255): true, strings.Repeat("x", 256): false, "ü1": false,
	} {
		require.Equal(t, ok, CheckName(name) == nil, name)
	}
	for range 100 {
		require.NoError(t, CheckName(randomName()))
	}
}

// TestRemoved by one who has made it and not started it: nothing is left.
func TestRemoved(t *testing.T) {
	ms := open(t)
	m := create(t, ms, Spec{})
	require.NoError(t, os.WriteFile(m.UpperFile(), nil, 0o600))
	require.NoError(t, m.Remove(t.Context(), false))
	require.NoDirExists(t, m.Folder())
	require.NoDirExists(t, filepath.Dir(m.LogFile()))
	require.ErrorIs(t, m.Remove(t.Context(), false), ErrNotFound)
}

// TestAGroupIsRemoved: that of a process which was killed, wherever it had it made; no other's.
func TestAGroupIsRemoved(t *testing.T) {
	ms := open(t)
	m := create(t, ms, Spec{})
	mine, foreign := filepath.Join(t.TempDir(), m.Group()), filepath.Join(t.TempDir(), "a")
	for _, dir := range []string{foreign, mine} {
		require.NoError(t, os.MkdirAll(m.Folder(), 0o700))
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, m.WriteState(State{Status: Dead, Group: dir}))
		require.NoError(t, m.erase())
	}
	require.NoDirExists(t, mine)
	require.DirExists(t, foreign)
}

// TestSweep: what a crash has left in the middle of something is gone with the next machine.
func TestSweep(t *testing.T) {
	ms := open(t)
	half := filepath.Join(ms.dir, strings.Repeat("b", 64))
	require.NoError(t, os.MkdirAll(half, 0o700))
	orphan := filepath.Join(ms.data, strings.Repeat("c", 64))
	require.NoError(t, os.MkdirAll(orphan, 0o700))
	require.NoError(t, os.WriteFile(orphan+"/owner", []byte(ms.dir+"/gone"), 0o600))
	foreign := filepath.Join(ms.data, "mine")
	require.NoError(t, os.MkdirAll(foreign, 0o700))
	list, err := ms.List()
	require.NoError(t, err)
	require.Empty(t, list)

	whole := create(t, ms, Spec{})
	require.NoDirExists(t, half)
	require.NoDirExists(t, orphan)
	require.DirExists(t, foreign)
	require.DirExists(t, filepath.Dir(whole.LogFile()))
}

// TestAutoRemove: one whose maker is gone before it was started is removed too, but not
// before.
func TestAutoRemove(t *testing.T) {
	ms := open(t)
	m := create(t, ms, Spec{AutoRemove: true})
	list, err := ms.List()
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.NoError(t, m.Close())
	list, err = ms.List()
	require.NoError(t, err)
	require.Empty(t, list)
	require.NoDirExists(t, m.Folder())
}

// TestAMachineThatCannotBeRead is an error that names it, and no reason to hide others.
func TestAMachineThatCannotBeRead(t *testing.T) {
	ms := open(t)
	m := create(t, ms, Spec{})
	require.NoError(t, os.WriteFile(filepath.Join(m.Folder(), specFile), []byte("{"), 0o600))
	_, err := ms.List()
	require.ErrorContains(t, err, m.ID())
}

// FuzzState: whatever a state file has in it, the answer is a state or an error.
func FuzzState(f *testing.F) {
	b, err := json.Marshal(State{Status: Running, PID: 5, Started: time.Now()})
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"status":"exited"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &Machine{folder: t.TempDir()}
		require.NoError(t, os.WriteFile(filepath.Join(m.folder, stateFile), b, 0o600))
		s, err := m.State()
		if err == nil {
			require.False(t, s.Status.Alive(), "nobody has its lock")
			require.Zero(t, s.PID)
		}
	})
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{
		"TERM": 15, "SIGKILL": 9, "sigint": 2, "9": 9, "64": 64, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "RTMAX": 64, "USR1": 10,
	} {
		got, err := ParseSignal(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "0", "65", "-1", "SIGFOO", "RTMIN+99", "RTMAX+1", "RTMINx"} {
		_, err := ParseSignal(text)
		require.ErrorContains(t, err, "signal", text)
	}
}

func TestDefaultDirs(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	dir, err := DefaultDir(env("XDG_RUNTIME_DIR", "/run/user/7"))
	require.NoError(t, err)
	require.Equal(t, "/run/user/7/husk", dir)
	_, err = DefaultDir(env("XDG_RUNTIME_DIR", "here"))
	require.ErrorContains(t, err, "absolute")
	dir, err = DefaultData(env("XDG_DATA_HOME", "/data"))
	require.NoError(t, err)
	require.Equal(t, "/data/husk", dir)
	dir, err = DefaultData(env("HOME", "/home/x"))
	require.NoError(t, err)
	require.Equal(t, "/home/x/.local/share/husk", dir)
}

// TestPrivate: a folder where others could have put one is not believed.
func TestPrivate(t *testing.T) {
	dir := t.TempDir()
	mine := dir + "/mine"
	require.NoError(t, private(mine, os.Geteuid()))
	require.NoError(t, private(mine, os.Geteuid()), "again")
	require.ErrorContains(t, private(mine, os.Geteuid()+1), "yours alone")
	require.NoError(t, os.Chmod(mine, 0o755))
	require.ErrorContains(t, private(mine, os.Geteuid()), "yours alone")
	require.NoError(t, os.Symlink(t.TempDir(), dir+"/link"))
	require.ErrorContains(t, private(dir+"/link", os.Geteuid()), "yours alone")
}
