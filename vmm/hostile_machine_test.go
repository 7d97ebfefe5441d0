package vmm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/disk"
	"github.com/huskvm/husk/devices/disk/qcow2"
	"github.com/huskvm/husk/devices/netdev"
	"github.com/huskvm/husk/devices/virtio"
	virtiopci "github.com/huskvm/husk/devices/virtio/pci"
	"github.com/huskvm/husk/vmm/memory"
)

// A victim is a machine with one device of each kind, and one more that attacks
// leave alone: a disk with memory of its own, as behind an IOMMU, so that what
// becomes of it is husk's doing.
type victim struct {
	*VM
	spare *driver
	log   *records

	disk, readOnly, snapshot string      // files
	format                   disk.Format // of disk
}

const (
	diskSize = mib
	spareMem = 1 << 40 // the guest-physical address of the spare disk's memory
)

// pattern is what is on the disks that must not change.
var pattern = bytes.Repeat([]byte("a sector's worth of what stays. "), diskSize/32)

// everything adds to cfg one device of each kind. The folder is for their files.
func (v *victim) everything(t *testing.T, cfg *Config, dir string, random *rand.Rand) {
	t.Helper()
	for name, f := range map[string]struct {
		path *string
		data []byte
	}{
		"disk.raw": {&v.disk, make([]byte, diskSize)}, "read-only.raw": {&v.readOnly, pattern},
		"snapshot.raw": {&v.snapshot, pattern}, "spare.raw": {new(string), make([]byte, diskSize)},
	} {
		*f.path = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(*f.path, f.data, 0o600))
	}
	v.format = disk.Raw
	if random.IntN(2) == 0 {
		v.format = disk.Qcow2
		require.NoError(t, os.Remove(v.disk))
		require.NoError(t, disk.Create(v.disk, diskSize, qcow2.CreateOptions{}))
	}
	cfg.Disks = []disk.Spec{
		{File: v.disk, Format: v.format, Discard: true},
		{File: v.readOnly, Format: disk.Raw, ReadOnly: true},
		{File: v.snapshot, Format: disk.Raw, Snapshot: true, Discard: true},
	}
	cfg.Entropy, cfg.Balloon, cfg.Console = true, true, &Serial{Out: io.Discard}
	cfg.Networks = []Network{{Options: netdev.Options{Kind: netdev.KindUser}}}
	cfg.Vsock = &Vsock{CID: 3, Path: filepath.Join(dir, "vsock")}
	cfg.Transport = []Transport{TransportPCI, TransportPCI, TransportMMIO}[random.IntN(3)]
}

// newVictim makes a machine of cfg, with everything, and the spare disk.
func newVictim(t *testing.T, cfg Config, dir string, random *rand.Rand) *victim {
	t.Helper()
	v := &victim{log: &records{counts: map[string]int{}}}
	v.everything(t, &cfg, dir, random)
	cfg.Log = slog.New(v.log)
	cfg.KVM = os.Getenv("HUSK_KVM")
	var err error
	v.VM, err = New(cfg)
	require.NoError(t, err)

	mem, err := memory.New([]memory.Range{{GPA: spareMem, Size: memory.HugePage}}, memory.THP)
	require.NoError(t, err)
	v.onClose(mem.Close)
	d, err := disk.Open(disk.Spec{File: filepath.Join(dir, "spare.raw"), Format: disk.Raw}, v.VM.log)
	require.NoError(t, err)
	v.onClose(d.Close)
	dev, err := newBlock(d, 1)
	require.NoError(t, err)
	events, err := v.newEvents(1)
	require.NoError(t, err)
	vectors, err := newVectors(v.interrupts, virtiopci.Vectors(dev))
	require.NoError(t, err)
	v.onClose(vectors.close)
	f, err := virtiopci.New(virtiopci.Options{
		Name: "spare", Root: v.board.pci, Slot: spareSlot, Device: dev, Memory: mem,
		Events: asVirtio(events), Doorbells: doorbells{v.kvm, events, v.VM.log}, Vectors: vectors, Log: v.VM.log,
	})
	require.NoError(t, err)
	v.onClose(func() error { f.Close(); return nil })
	v.virtio = append(v.virtio, f)
	v.cfg.Disks = append(v.cfg.Disks, disk.Spec{File: "spare"}) // its name, for errors
	v.spare = newDriver(v.VM, target{slot: spareSlot, base: homeBase(spareSlot)}, mem, spareMem)
	v.spare.plugIn()
	return v
}

// attack is one on the machine.
func (v *victim) attack(random *rand.Rand) attack {
	cfg := v.cfg
	cfg.Disks = cfg.Disks[:3]
	return attack{
		Rand: random, mapped: v.board.pio.Ranges(), ram: v.mem.Size(), targets: cfg.targets(),
		wild:   []float64{0, 0.01, 0.03, 0.1, 0.5}[random.IntN(5)],
		spared: devices.Range{Base: homeBase(spareSlot), Size: 1 << 16},
	}
}

// recover has well-behaved drivers take over everything that was attacked: the
// devices work, and nothing has changed that could not. No vCPU runs.
func (v *victim) recover() error {
	v.resumeVirtio(len(v.virtio))
	var drivers []*driver
	for _, t := range v.attack(rand.New(rand.NewPCG(0, 0))).targets {
		d := newDriver(v.VM, t, v.mem, places)
		if t.slot != 0 {
			d.do(d.config(pciCommand, 2, 0))
		}
		drivers = append(drivers, d)
	}
	for _, d := range drivers {
		d.plugIn()
		if err := d.reset(); err != nil {
			return fmt.Errorf("%+v: %w", d.target, err)
		}
	}
	disks := 0
	for _, d := range drivers {
		err := d.start()
		switch kind := d.deviceType(); {
		case err != nil:
		case kind == virtio.Block:
			files := []string{v.disk, v.readOnly, v.snapshot}
			if disks == 2 || disks == 0 && v.format != disk.Raw { // what the guest wrote is nowhere else
				_, err = d.block(blockRead, 0, nil, 64<<10)
			} else {
				var want []byte
				if want, err = os.ReadFile(files[disks]); err == nil {
					err = d.readsAs(want)
				}
			}
			disks++
		case kind == virtio.Entropy:
			var random []byte
			if random, err = d.request(nil, 64); err == nil && bytes.Equal(random, make([]byte, 64)) {
				err = fmt.Errorf("no entropy")
			}
		}
		if err == nil {
			err = d.reset()
		}
		if err != nil {
			return fmt.Errorf("type %d, %+v: %w", d.deviceType(), d.target, err)
		}
	}
	return v.pauseVirtio()
}

// checkBARs: nothing that a guest has placed is where RAM or another chip is.
func (v *victim) checkBARs(t *testing.T, seed uint64) {
	t.Helper()
	windows := []devices.Range{{Base: pciLowBase, Size: pciLowSize}, {Base: pciHigh(v.mem.Size()), Size: pciHighSize}}
	for _, r := range v.board.mmio.Ranges() {
		require.True(t, !strings.Contains(r.Name, " BAR ") || slices.ContainsFunc(windows, func(w devices.Range) bool {
			return r.Base >= w.Base && r.Base+r.Size <= w.Base+w.Size
		}), "SOAK_SEED=%d: %v", seed, r)
	}
}

// checkFiles: what cannot be written has not changed, and nothing has grown.
func (v *victim) checkFiles(t *testing.T, seed uint64) {
	t.Helper()
	for _, name := range []string{v.readOnly, v.snapshot} {
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(got, pattern), "SOAK_SEED=%d: %s has changed", seed, filepath.Base(name))
	}
	if v.format == disk.Raw {
		st, err := os.Stat(v.disk)
		require.NoError(t, err)
		require.EqualValues(t, diskSize, st.Size(), "SOAK_SEED=%d", seed)
		return
	}
	check, err := exec.LookPath("qemu-img")
	if err != nil {
		return // the image's own tests look closer
	}
	out, err := exec.Command(check, "check", "-f", "qcow2", v.disk).CombinedOutput()
	require.NoError(t, err, "SOAK_SEED=%d: %s", seed, out)
}

// records is a log that counts what a guest has it say.
type records struct {
	mu     sync.Mutex
	counts map[string]int
}

func (*records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler     { return r }
func (r *records) WithGroup(string) slog.Handler          { return r }

func (r *records) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[record.Message]++
	return nil
}

// most is the line that was logged most often.
func (r *records) most() (n int, message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for m, c := range r.counts {
		if c > n {
			n, message = c, m
		}
	}
	return n, message
}
