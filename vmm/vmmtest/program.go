package vmmtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/huskvm/husk/internal/guestinit"
)

// programVariable names a husk-init.
const programVariable = "HUSK_INIT"

// program is husk-init: the one built in, the one that the environment names, or, where
// this package is imported as a module and so has none built in, one built now. The go
// command builds it from the same version as this package.
var program = sync.OnceValues(func() ([]byte, error) {
	if path := os.Getenv(programVariable); path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", programVariable, err)
		}
		return b, nil
	}
	b, err := guestinit.Binary()
	if errors.Is(err, guestinit.ErrNotBuilt) {
		return buildProgram("go")
	}
	return b, err
})

// buildProgram has the go command build husk-init, which takes a second where its
// cache has the rest.
func buildProgram(goCommand string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "husk-init")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "husk-init")
	cmd := exec.Command(goCommand, "build", "-race=false", "-msan=false", "-asan=false", "-cover=false",
		"-trimpath", "-ldflags=-s -w", "-o", file, "github.com/huskvm/husk/cmd/husk-init")
	// GOFLAGS may ask for what needs cgo, such as -race: not for this program.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("husk-init, the guest's first process, is not built in and go build failed: %w\n%s"+
			"make builds it in a clone of husk; %s=FILE names one that is built", err, out, programVariable)
	}
	return os.ReadFile(file)
}
