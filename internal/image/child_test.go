package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// runChild is a process of a test's: "pull NAME", "root NAME", "full MODE NAME", with the
// store in HUSK_IMAGE_TEST_STORE. It prints the image's ID, or fails.
func runChild(what string) int {
	words := strings.Fields(what)
	if words[0] == "full" {
		return fullChild(os.Getenv("HUSK_IMAGE_TEST_STORE"), words[1], words[2])
	}
	s, err := Open(os.Getenv("HUSK_IMAGE_TEST_STORE"))
	if err == nil {
		err = s.child(words)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (s *Store) child(words []string) error {
	ctx := context.Background()
	switch words[0] {
	case "pull":
		i, err := s.Pull(ctx, words[1], quick())
		if err != nil {
			return err
		}
		fmt.Println(i.ID)
	case "root":
		i, err := s.Get(words[1])
		if err != nil {
			return err
		}
		f, err := s.Root(ctx, i, "list-1", listing(20*time.Millisecond))
		if err != nil {
			return err
		}
		text, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		fmt.Print(string(text))
	}
	return nil
}

// listing builds a root that is only a list of its layers, and who has made it.
func listing(slowly time.Duration) func(context.Context, *os.File, []Layer) error {
	return func(ctx context.Context, w *os.File, layers []Layer) error {
		e := json.NewEncoder(w)
		for _, l := range layers {
			if err := pause(ctx, slowly); err != nil {
				return err
			}
			if err := e.Encode(fmt.Sprint(os.Getpid(), " ", l.DiffID)); err != nil {
				return err
			}
		}
		return nil
	}
}
