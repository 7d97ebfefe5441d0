package boot

import (
	"debug/elf"
	"encoding/binary"
)

const (
	xenNoteName        = "Xen\x00"
	xenNotePhys32Entry = 18 // XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h
)

// findPVH looks in all note segments for the first PVH entry.
func (k *elfImage) findPVH(progs []elf.Prog64) (entry uint64, ok bool, err error) {
	for _, p := range progs {
		if elf.ProgType(p.Type) != elf.PT_NOTE {
			continue
		}
		if entry, ok, err = k.pvhEntry(p); ok || err != nil {
			return entry, ok, err
		}
	}
	return 0, false, nil
}

// pvhEntry looks in a note segment for Xen's note with the PVH entry.
func (k *elfImage) pvhEntry(p elf.Prog64) (entry uint64, ok bool, err error) {
	if p.Filesz > maxNotes {
		return 0, false, k.malformed("it has a note segment of %d bytes", p.Filesz)
	}
	b := make([]byte, p.Filesz)
	if err := k.src.read(b, int64(p.Off), "the note segment"); err != nil {
		return 0, false, err
	}
	align := uint64(4)
	if p.Align == 8 { // as .note.gnu.property has it
		align = 8
	}
	for len(b) >= noteHead {
		n, rest, good := nextNote(b, align)
		if !good {
			return 0, false, k.malformed("its note segment breaks off in a note")
		}
		b = rest
		if n.name != xenNoteName || n.kind != xenNotePhys32Entry {
			continue
		}
		switch len(n.desc) {
		case 4:
			return uint64(binary.LittleEndian.Uint32(n.desc)), true, nil
		case 8:
			return binary.LittleEndian.Uint64(n.desc), true, nil
		}
		return 0, false, k.malformed("its PVH note has %d bytes instead of 4 or 8", len(n.desc))
	}
	return 0, false, nil
}

// A note is one entry of a note segment (System V gABI, "Note Section").
type note struct {
	name string
	kind uint32
	desc []byte
}

// noteHead is the size of namesz, descsz and type.
const noteHead = 12

// nextNote splits the first note off b, which has at least noteHead bytes.
func nextNote(b []byte, align uint64) (n note, rest []byte, ok bool) {
	le := binary.LittleEndian
	namesz, descsz := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
	desc := alignUp(noteHead+namesz, align)
	end := desc + descsz
	if end > uint64(len(b)) {
		return n, nil, false
	}
	n = note{string(b[noteHead : noteHead+namesz]), le.Uint32(b[8:]), b[desc:end]}
	// The last note need not be padded.
	return n, b[min(alignUp(end, align), uint64(len(b))):], true
}
