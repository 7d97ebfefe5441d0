package virtio

import (
	"sync"

	"github.com/huskvm/husk/devices"
	"github.com/huskvm/husk/devices/virtio/queue"
)

// The bits of an ISR.
const (
	ISRQueue  = 1 << 0 // a buffer was used
	ISRConfig = 1 << 1 // the configuration changed
)

// An ISR is the interrupt status of a device with one interrupt line: INTx
// (virtio 1.2 §4.1.4.5) and MMIO (§4.2.2). The line is up while a bit is.
type ISR struct {
	line devices.Line
	mu   sync.Mutex
	bits uint32
}

// NewISR returns an ISR without a bit set. It drives line.
func NewISR(line devices.Line) *ISR { return &ISR{line: line} }

// Interrupt returns what raises bits.
func (i *ISR) Interrupt(bits uint32) queue.Interrupt { return isrBits{i, bits} }

// Bits are those that are up: MMIO's InterruptStatus.
func (i *ISR) Bits() uint32 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.bits
}

// Take returns the bits and clears them: what a load of PCI's ISR status does.
func (i *ISR) Take() uint32 {
	i.mu.Lock()
	defer i.mu.Unlock()
	bits := i.bits
	i.set(0)
	return bits
}

// Clear clears bits: MMIO's InterruptACK. A reset clears all.
func (i *ISR) Clear(bits uint32) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.set(i.bits &^ bits)
}

// set has the lock held over the line, so that the line's level is the latest.
func (i *ISR) set(bits uint32) {
	if (bits != 0) != (i.bits != 0) {
		i.line.Set(bits != 0)
	}
	i.bits = bits
}

type isrBits struct {
	isr  *ISR
	bits uint32
}

// Signal implements queue.Interrupt.
func (b isrBits) Signal() {
	b.isr.mu.Lock()
	defer b.isr.mu.Unlock()
	b.isr.set(b.isr.bits | b.bits)
}
