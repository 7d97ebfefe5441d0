package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/schollz/progressbar/v3"

	"github.com/huskvm/husk/internal/term"
)

// A pullProgress shows people how a pull goes: on a terminal by a bar, else by a line for
// each layer.
type pullProgress struct {
	out  io.Writer
	bar  bool // there is a terminal
	list bool // without one, there is a line for each layer
	name string

	mu      sync.Mutex
	drawn   *progressbar.ProgressBar // nil while there is nothing to draw
	sizes   map[v1.Hash]int64
	have    map[v1.Hash]int64
	total   int64
	layers  int
	arrived map[v1.Hash]bool
}

func newPullProgress(out io.Writer, name string) *pullProgress {
	f, ok := out.(*os.File)
	isTerminal := ok && term.IsTerminal(f)
	return &pullProgress{out: out, name: name, bar: isTerminal, list: !isTerminal}
}

// Begin is told which layers there are.
func (p *pullProgress) Begin(layers []v1.Descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sizes, p.have = map[v1.Hash]int64{}, map[v1.Hash]int64{}
	p.arrived = map[v1.Hash]bool{}
	p.total, p.layers = 0, 0
	for _, l := range layers {
		if _, twice := p.sizes[l.Digest]; !twice {
			p.sizes[l.Digest] = l.Size
			p.total += l.Size
			p.layers++
		}
	}
	if p.list {
		fmt.Fprintf(p.out, "%s: layers: %d, size: %s\n", p.name, p.layers, humanSize(p.total))
	}
}

// Advance is told how many bytes have come.
func (p *pullProgress) Advance(layer v1.Hash, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have[layer] += n
	p.draw()
}

// Done is told that a layer is here.
func (p *pullProgress) Done(layer v1.Hash, fetched bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	twice := p.arrived[layer] // in the image
	p.have[layer], p.arrived[layer] = p.sizes[layer], true
	switch {
	case p.drawn != nil:
		p.draw()
	case !p.list || twice:
	case fetched:
		fmt.Fprintf(p.out, "%.12s: pulled\n", layer.Hex)
	default:
		fmt.Fprintf(p.out, "%.12s: already here\n", layer.Hex)
	}
}

// Note is told something that people should know.
func (p *pullProgress) Note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn != nil {
		_ = p.drawn.Clear()
	}
	fmt.Fprintf(p.out, "husk: %s\n", text)
}

// draw draws the bar as it is now.
func (p *pullProgress) draw() {
	if !p.bar || p.total == 0 {
		return
	}
	if p.drawn == nil {
		p.drawn = progressbar.NewOptions64(p.total,
			progressbar.OptionSetWriter(p.out), progressbar.OptionShowBytes(true), progressbar.OptionShowTotalBytes(true),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	}
	have := int64(0)
	for _, n := range p.have {
		have += n
	}
	p.drawn.Describe(fmt.Sprintf("%s, %d of %d layers", p.name, len(p.arrived), p.layers))
	// A bar that is full is finished, and does not go back when something was in vain.
	_ = p.drawn.Set64(max(0, min(have, p.total-1)))
}

// close takes the bar off the terminal.
func (p *pullProgress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn != nil {
		_ = p.drawn.Clear()
		_ = p.drawn.Exit()
		p.drawn = nil
	}
}
