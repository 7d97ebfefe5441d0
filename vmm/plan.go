package vmm

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/huskvm/husk/boot"
	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/pvpanic"
	"github.com/huskvm/husk/devices/virtio/mmio"
	"github.com/huskvm/husk/firmware/acpi"
	"github.com/huskvm/husk/firmware/e820"
)

// A Plan is what New would make of a Config, decided without touching KVM.
type Plan struct {
	Kernel      string       `json:"kernel"`          // the file
	Found       []string     `json:"found,omitempty"` // where on the disk, and what was odd, if it was looked for
	Format      string       `json:"format"`          // of the kernel image
	Version     string       `json:"version"`         // of the kernel, where its image tells
	CommandLine string       `json:"command_line"`
	Initrds     []string     `json:"initrds"`
	Memory      uint64       `json:"memory"` // bytes
	Backing     Backing      `json:"backing"`
	CPUs        int          `json:"cpus"`
	MemoryMap   []e820.Entry `json:"memory_map"`
	Devices     []Placement  `json:"devices"`
	Entry       boot.Entry   `json:"entry"`
}

// A Placement is a device on a bus.
type Placement struct {
	Name  string `json:"name"`
	Space string `json:"space"` // "pio", "mmio", or "pci", where Base is a slot
	Base  uint64 `json:"base"`
	Size  uint64 `json:"size"`
}

// PlanOf says what New would make of cfg. It loads the kernel into nowhere, so
// what does not fit is refused as New would.
func PlanOf(cfg Config) (*Plan, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	disks, err := cfg.openDisksForReading()
	defer func() {
		for _, d := range disks {
			_ = d.Close()
		}
	}()
	var found []string
	if err == nil {
		found, err = cfg.findKernel(disks)
	}
	if err != nil {
		return nil, err
	}
	p := &Plan{
		Found:  found,
		Kernel: cfg.Kernel.Name, CommandLine: cfg.commandLine(), Memory: cfg.Memory,
		Backing: cfg.Backing, CPUs: cfg.CPUs, MemoryMap: memoryMap(cfg.Memory),
		Initrds: []string{}, // in JSON a list, not null
	}
	for _, s := range cfg.initrds() {
		p.Initrds = append(p.Initrds, s.Name)
	}
	image, entry, err := load(cfg, nowhere{})
	if err != nil {
		return nil, err
	}
	p.Entry, p.Format = entry, image.Format()
	if v, ok := image.(boot.Versioner); ok {
		p.Version = v.Version()
	}
	if _, err := acpi.Build(describe(cfg)); err != nil {
		return nil, err
	}
	b, err := newBoard(cfg, wires{
		line:    func(uint32) devices.Line { return nowhere{} },
		stop:    func(Result) {},
		panic:   func(pvpanic.Event) {},
		marker:  func(byte) {},
		console: io.Discard,
		first:   func() {},
		log:     cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	for _, bus := range []struct {
		space string
		*devices.Bus
	}{{"pio", b.pio}, {"mmio", b.mmio}} {
		for _, r := range bus.Ranges() {
			p.Devices = append(p.Devices, Placement{r.Name, bus.space, r.Base, r.Size})
		}
	}
	for i, part := range cfg.parts() {
		place := Placement{Name: part.name, Space: "pci", Base: firstSlot + uint64(i), Size: 1}
		if cfg.Transport == TransportMMIO {
			at := virtioMMIO(i)
			place = Placement{Name: part.name, Space: "mmio", Base: uint64(at.Base), Size: uint64(at.Size)}
		}
		p.Devices = append(p.Devices, place)
	}
	b.rtc.Close()
	return p, nil
}

// openDisksForReading opens the disks, to see that they are there, and to look for a
// kernel on the first one. Those that are open when it fails are returned, too.
func (c Config) openDisksForReading() (disks []*disk.Disk, err error) {
	for _, spec := range c.Disks {
		d, err := openForReading(spec, c.Log)
		if err != nil {
			return disks, err
		}
		disks = append(disks, d)
		if _, err := newBlock(d, c.CPUs); err != nil {
			return disks, fmt.Errorf("%w: %s: %w", ErrConfig, spec.File, err)
		}
	}
	return disks, nil
}

// commandLine is the whole of it.
func (c Config) commandLine() string {
	more := []string{c.Append}
	if c.Transport == TransportMMIO {
		for i := range c.parts() {
			at := virtioMMIO(i)
			more = append(more, mmio.CommandLine(uint64(at.Base), at.GSI))
		}
	}
	return boot.AddWords(c.CommandLine, more...)
}

// initrds are all of them.
func (c Config) initrds() []boot.Source { return slices.Concat(c.Initrds, c.AppendInitrds) }

// load puts the kernel of cfg into mem.
func load(cfg Config, mem io.WriterAt) (boot.Image, boot.Entry, error) {
	image, err := boot.Open(cfg.Kernel)
	if err != nil {
		return nil, boot.Entry{}, err
	}
	entry, err := image.Load(mem, boot.Machine{
		MemoryMap:   memoryMap(cfg.Memory),
		RSDP:        acpiBase,
		CommandLine: cfg.commandLine(),
		Initrds:     cfg.initrds(),
	})
	return image, entry, err
}

// nowhere is memory that forgets and a line that leads to nothing.
type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error)        { return len(p), nil }
func (nowhere) Fill(_ int64, _ io.ReaderAt, _, _ int64) error { return nil }
func (nowhere) Set(bool)                                      {}

func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kernel   %s: %s", p.Kernel, p.Format)
	if p.Version != "" {
		fmt.Fprintf(&b, ", %s", p.Version)
	}
	for _, line := range p.Found {
		fmt.Fprintf(&b, "\nfound    %s", line)
	}
	fmt.Fprintf(&b, "\ncmdline  %s\n", p.CommandLine)
	for _, s := range p.Initrds {
		fmt.Fprintf(&b, "initrd   %s\n", s)
	}
	fmt.Fprintf(&b, "machine  %d processors, %d MiB of memory (%s)\n", p.CPUs, p.Memory/mib, p.Backing)
	for _, e := range p.MemoryMap {
		fmt.Fprintf(&b, "memory   %#012x-%#012x %s\n", e.Addr, e.End()-1, e.Type)
	}
	for _, d := range p.Devices {
		fmt.Fprintf(&b, "%-8s %#06x+%d %s\n", d.Space, d.Base, d.Size, d.Name)
	}
	fmt.Fprintf(&b, "entry    %#x\n", p.Entry.RIP)
	return b.String()
}
