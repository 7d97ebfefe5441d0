package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the repository's, seen from here.
const root = "../.."

// guide is how code and help texts name one.
var guide = regexp.MustCompile(`docs/[a-z0-9-]+\.md`)

// link is one in Markdown, without what is behind #; those with a scheme are other sites'.
var link = regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)\s]*)?\)`)

// TestGuidesThatAreNamedExist: those that code and help texts send their readers to.
func TestGuidesThatAreNamedExist(t *testing.T) {
	named := map[string]bool{}
	for _, folder := range []string{"cmd", "internal", "boot", "devices", "vmm", "kvm", "firmware"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, folder), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, name := range guide.FindAllString(string(b), -1) {
				named[name] = true
				require.FileExists(t, filepath.Join(root, name), "%s names it", path)
			}
			return nil
		}))
	}
	require.Contains(t, named, "docs/run.md", "the check must see real names")
}

// TestLinksLeadSomewhere: those of the guides to other files here.
func TestLinksLeadSomewhere(t *testing.T) {
	guides, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	require.NoError(t, err)
	top, err := filepath.Glob(filepath.Join(root, "*.md"))
	require.NoError(t, err)
	links := 0
	for _, path := range append(guides, top...) {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			links++
			_, err := os.Stat(filepath.Join(filepath.Dir(path), strings.TrimSuffix(m[1], "/")))
			require.NoError(t, err, "%s links to %s", path, m[1])
		}
		for _, name := range guide.FindAllString(string(b), -1) {
			require.FileExists(t, filepath.Join(root, name), "%s names it", path)
		}
	}
	require.NotZero(t, links)
}
