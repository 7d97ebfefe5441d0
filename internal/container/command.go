package container

import (
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// ErrNoCommand is that nobody has said what to run: not the image, and not the user.
var ErrNoCommand = errors.New("no command specified: name one behind the image, which has none, or none that goes with an --entrypoint")

// Command is what to run: the image's entrypoint, or the one given instead (nil for none,
// and "" for no entrypoint at all), and its arguments, or else the image's command. A given
// entrypoint drops that one, because it is arguments for another program.
func Command(image v1.Config, entrypoint *string, args []string) ([]string, error) {
	program := image.Entrypoint
	switch {
	case entrypoint != nil && *entrypoint == "":
		program = nil
	case entrypoint != nil:
		program = []string{*entrypoint}
	case len(args) == 0:
		args = image.Cmd
	}
	argv := append(append([]string{}, program...), args...)
	if len(argv) == 0 {
		return nil, ErrNoCommand
	}
	return argv, nil
}
