package image

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// A Policy says when an image is fetched before it is run.
type Policy string

// The policies, as docker run --pull has them.
const (
	Missing Policy = "missing" // when it is not here for the platform
	Always  Policy = "always"
	Never   Policy = "never"
)

// ParsePolicy understands a policy's name.
func ParsePolicy(s string) (Policy, error) {
	switch p := Policy(s); p {
	case Missing, Always, Never:
		return p, nil
	}
	return "", fmt.Errorf("%q: must be one of missing, always, never", s)
}

// Find gives an image to run, and fetches it if need be and the policy allows it. What is
// named with a transport, as an archive, is read in any case; what is in it and here
// already is not copied again.
func (s *Store) Find(ctx context.Context, name string, policy Policy, o PullOptions) (*Image, error) {
	o = o.withDefaults()
	src, err := ParseSource(name)
	if err != nil && !isIDPrefix(name) {
		return nil, err
	}
	remote := err == nil && !strings.HasPrefix(name, "sha256:")
	if remote && src.Transport != FromRegistry {
		return s.Pull(ctx, name, o)
	}
	name = strings.TrimPrefix(name, string(FromRegistry)+"://")
	if remote && policy == Always {
		return s.Pull(ctx, name, o)
	}
	i, err := s.Get(name)
	if err == nil {
		err = plainly(s.check(i, o))
	}
	switch {
	case err == nil:
		return i, nil
	case errors.Is(err, ErrAmbiguous) || !remote || i != nil && !i.called(name):
		return nil, err
	case policy == Never:
		return nil, fmt.Errorf("%w; it was not to be pulled", err)
	}
	return s.Pull(ctx, name, o)
}

// check tells whether an image that is here can be used.
func (s *Store) check(i *Image, o PullOptions) error {
	if have := platformOf(&i.Config); have.OS != "" && !fits(have, o.Platform) {
		return fmt.Errorf("%s: %w", i, noPlatform(o.Platform, []string{have.String()}))
	}
	_, err := s.Layers(i)
	return err
}

// called tells whether an image has this name, and is not only meant by its ID.
func (i *Image) called(name string) bool {
	ref, err := ParseReference(name)
	return err == nil && i.record.called(ref)
}
