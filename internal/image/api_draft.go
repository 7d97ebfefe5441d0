package image

import (
	"context"
	"errors"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// PullOptions say how an image is fetched. The zero value is what husk does by default.
type PullOptions struct {
	Platform v1.Platform // the zero value for DefaultPlatform
	Mirrors  []string
	Insecure bool
	Settings Settings
	Keychain authn.Keychain // nil for Docker's: ~/.docker/config.json
	Progress Progress       // nil for none
}

// Settings are those of the user's configuration file.
type Settings struct{}

// Progress is told how a pull goes.
type Progress interface{}

// A Policy says when an image is fetched.
type Policy string

const (
	Missing Policy = "missing" // when it is not here, or for another platform
	Always  Policy = "always"
	Never   Policy = "never"
)

func (s *Store) Pull(ctx context.Context, name string, o PullOptions) (*Image, error) {
	return nil, errors.New("being written")
}

// Find gives the image to run.
func (s *Store) Find(ctx context.Context, name string, policy Policy, o PullOptions) (*Image, error) {
	return s.Get(name)
}
