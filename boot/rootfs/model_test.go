package rootfs

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The model keeps files by their paths and nothing else: what overlayfs shows of folders
// into which layers have been unpacked.

// A thing is a file of the model; links to it share it.
type thing struct {
	dir     bool
	implied bool
	mode    int64
	target  string // of a symbolic link
	content string
}

type modelLayer struct {
	up       map[string]*thing
	whiteout map[string]bool
	opaque   map[string]bool
}

var errModel = errors.New("the model refuses it")

// resolve follows links in the parents of names; with make, folders are made.
func (m *modelLayer) resolve(names []string, below map[string]*thing, makeDirs bool) (string, error) {
	at, links := ".", 0
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		switch name {
		case "":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, name)
		t := m.up[next]
		if t == nil && below != nil {
			t = below[next]
		}
		switch {
		case t == nil && makeDirs:
			m.up[next] = &thing{dir: true, implied: true, mode: 0o755}
		case t == nil:
			return "", errModel
		case t.target != "":
			if links++; links > maxLinks {
				return "", errModel
			}
			if strings.HasPrefix(t.target, "/") {
				at = "."
			}
			names = append(strings.Split(strings.Trim(t.target, "/"), "/"), names...)
			continue
		case !t.dir:
			return "", errModel
		}
		at = next
	}
	return at, nil
}

func (m *modelLayer) add(e entry, below map[string]*thing) error {
	names := strings.Split(strings.TrimSuffix(e.Name, "/"), "/")
	last := len(names) - 1
	parent, err := m.resolve(names[:last], nil, true)
	if err != nil {
		return err
	}
	if names[last] == opaque {
		m.opaque[parent] = true
		return nil
	}
	if hidden, ok := strings.CutPrefix(names[last], whiteout); ok {
		m.whiteout[path.Join(parent, hidden)] = true
		return nil
	}
	full := path.Join(parent, names[last])
	t := &thing{mode: e.Mode, content: e.content, target: e.Linkname, dir: e.Typeflag == '5'}
	if e.Typeflag == '1' {
		if t, err = m.linked(e.Linkname, below); err != nil {
			return err
		}
	}
	if old := m.up[full]; old != nil && old.dir && t.dir {
		old.mode, old.implied = t.mode, false
		return nil
	}
	for p := range m.up {
		if strings.HasPrefix(p, full+"/") {
			delete(m.up, p)
		}
	}
	// What goes with a folder goes with its marks.
	for p := range m.whiteout {
		if strings.HasPrefix(p, full+"/") {
			delete(m.whiteout, p)
		}
	}
	for p := range m.opaque {
		if p == full || strings.HasPrefix(p, full+"/") {
			delete(m.opaque, p)
		}
	}
	m.up[full] = t
	return nil
}

func (m *modelLayer) linked(target string, below map[string]*thing) (*thing, error) {
	names := strings.Split(target, "/")
	last := len(names) - 1
	parent, err := m.resolve(names[:last], below, false)
	if err != nil {
		return nil, err
	}
	full := path.Join(parent, names[last])
	t := m.up[full]
	// What is below is seen only where it is not behind a file of this layer.
	if t == nil {
		t = below[full]
	}
	if t == nil || t.dir {
		return nil, errModel
	}
	return t, nil
}

// over puts the layer above what is below.
func (m *modelLayer) over(below map[string]*thing) map[string]*thing {
	all := map[string]*thing{}
	for p, t := range below {
		if !m.hidden(p) {
			all[p] = t
		}
	}
	for p, t := range m.up {
		old := all[p]
		switch {
		case t.dir && t.implied && old != nil && old.dir: // stays as it is
		case t.dir:
			all[p] = &thing{dir: true, mode: t.mode}
		default:
			all[p] = t
		}
	}
	return all
}

// hidden says whether the layer takes away what is below at p, or replaces it.
func (m *modelLayer) hidden(p string) bool {
	for q := p; q != "."; q = path.Dir(q) {
		if m.whiteout[q] || m.opaque[path.Dir(q)] {
			return true
		}
		if t := m.up[q]; t != nil && !t.dir {
			return true
		}
	}
	return false
}

func model(layers [][]entry) (tree, error) {
	all := map[string]*thing{}
	for _, l := range layers {
		m := &modelLayer{up: map[string]*thing{}, whiteout: map[string]bool{}, opaque: map[string]bool{}}
		for _, e := range l {
			if err := m.add(e, all); err != nil {
				return nil, err
			}
		}
		all = m.over(all)
	}
	links := map[*thing]int{}
	for _, t := range all {
		links[t]++
	}
	out := tree{}
	for p, t := range all {
		s := fmt.Sprintf("file %.20q", t.content)
		switch {
		case t.dir && t.mode == 0o755:
			continue
		case t.dir:
			s = fmt.Sprintf("dir %o", t.mode)
		case t.target != "":
			s = "-> " + t.target
		case t.mode != 0o644:
			s += fmt.Sprintf(" %o", t.mode)
		}
		if n := links[t]; n > 1 && !t.dir {
			s += fmt.Sprintf(" links=%d", n)
		}
		out[p] = s
	}
	return out, nil
}

func genEntry() *rapid.Generator[entry] {
	return rapid.Custom(func(t *rapid.T) entry {
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 4).Draw(t, "names")
		name := strings.Join(names, "/")
		folder := strings.Join(names[:len(names)-1], "/")
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0, 1, 2, 3:
			content := strings.Repeat(rapid.StringN(1, 3, 9).Draw(t, "content"), rapid.SampledFrom([]int{1, 20, 1000}).Draw(t, "times"))
			return file(name, content).with(mode(rapid.SampledFrom([]int64{0o644, 0o4755}).Draw(t, "mode")))
		case 4:
			return dir(name, rapid.SampledFrom([]int64{0o755, 0o700, 0o1777}).Draw(t, "mode"))
		case 5:
			return link(name, rapid.SampledFrom([]string{"a", "../b", "/c", "a/b", "/", "../../.."}).Draw(t, "target")).with(mode(0o644))
		case 6, 7:
			return hard(name, strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3).Draw(t, "target"), "/"))
		case 8:
			return file(path.Join(folder, whiteout+names[len(names)-1]), "")
		default:
			return file(path.Join(folder, opaque), "")
		}
	})
}

func TestLayersAsTheModel(t *testing.T) {
	refused := 0
	rapid.Check(t, func(r *rapid.T) {
		layers := rapid.SliceOfN(rapid.SliceOfN(genEntry(), 0, 10), 1, 4).Draw(r, "layers")
		if !rapid.Bool().Draw(r, "with what is refused") {
			layers = withoutRefused(layers)
		}
		want, refusal := model(layers)
		image, _, err := buildInMemory(r, layersOf(r, layers...)...)
		if refusal != nil {
			refused++
			require.ErrorIs(r, err, ErrLayer)
			return
		}
		require.NoError(r, err)
		require.Equal(r, want, list(r, image))
	})
	t.Logf("%d refused", refused)
}

// withoutRefused leaves out the entries that the model refuses.
func withoutRefused(layers [][]entry) [][]entry {
	var all [][]entry
	for _, l := range layers {
		all = append(all, nil)
		last := len(all) - 1
		for _, e := range l {
			before := all[last]
			all[last] = append(before[:len(before):len(before)], e)
			if _, err := model(all); err != nil {
				all[last] = before
			}
		}
	}
	return all
}
