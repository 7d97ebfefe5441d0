package image

import v1 "github.com/google/go-containerregistry/pkg/v1"

// A Progress is told how a pull goes. Several goroutines call it at once.
type Progress interface {
	// Begin comes once, before the layers: which there are, and how many bytes each has.
	Begin(layers []v1.Descriptor)
	// Advance tells that n bytes of a layer have come, or were here; it is negative when
	// they were in vain.
	Advance(layer v1.Hash, n int64)
	// Done tells that a layer is here. fetched is false if it was all the time.
	Done(layer v1.Hash, fetched bool)
	// Note has something to tell people: a mirror that fails, a connection that broke.
	Note(text string)
}

// silent is the Progress of who wants none.
type silent struct{}

func (silent) Begin([]v1.Descriptor)  {}
func (silent) Advance(v1.Hash, int64) {}
func (silent) Done(v1.Hash, bool)     {}
func (silent) Note(string)            {}
