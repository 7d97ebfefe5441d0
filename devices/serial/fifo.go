package serial

// fifoSize is the depth of a 16550A's FIFOs in bytes.
const fifoSize = 16

// A fifo is the receiver's: bytes, each with the LSR error bits it came with.
type fifo struct {
	bytes  [fifoSize]byte
	errors [fifoSize]byte
	head   int  // index of the oldest
	n      int  // how many
	last   byte // the byte read last, which the empty receiver shows again
}

// push adds a byte. The caller has checked for room.
func (f *fifo) push(v, errors byte) {
	i := (f.head + f.n) % fifoSize
	f.bytes[i], f.errors[i] = v, errors
	f.n++
}

func (f *fifo) pop() byte {
	if f.n > 0 {
		f.last = f.bytes[f.head]
		f.head = (f.head + 1) % fifoSize
		f.n--
	}
	return f.last
}

// flagged tells whether any byte in the FIFO came with an error.
func (f *fifo) flagged() bool {
	for i := range f.n {
		if f.errors[(f.head+i)%fifoSize] != 0 {
			return true
		}
	}
	return false
}
