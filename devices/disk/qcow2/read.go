package qcow2

import (
	"fmt"

	"github.com/huskvm/husk/devices/iovec"
)

// ReadAt fills v with the disk's bytes from off on.
func (q *Image) ReadAt(v [][]byte, off int64) error {
	n := iovec.Len(v)
	if err := q.check("read", off, n, false); err != nil {
		return err
	}
	for done := int64(0); done < n; {
		got, err := q.step(func() (int64, error) {
			return q.readSpan(iovec.Slice(v, done, n-done), off+done)
		})
		if err != nil {
			return fmt.Errorf("read at %#x: %w", off+done, err)
		}
		done += got
	}
	return nil
}

// readSpan reads the start of v, as far as it lies in one piece. inflight is held.
func (q *Image) readSpan(v [][]byte, off int64) (int64, error) {
	q.mu.Lock()
	s, err := q.lookup(off, iovec.Len(v))
	q.mu.Unlock()
	if err != nil {
		return 0, err
	}
	v = iovec.Slice(v, 0, s.n)
	switch s.kind {
	case kindData:
		err = q.file.ReadAt(v, s.host)
	case kindCompressed:
		err = q.readPacked(v, s.entry, off&(q.clusterSize-1))
	case kindAbsent:
		err = q.readBacking(v, off)
	case kindZero:
		iovec.Zero(v)
	}
	return s.n, err
}

// readAll reads all of p. Its L2 tables are pinned, and inflight is held.
func (q *Image) readAll(p []byte, off int64) error {
	for len(p) > 0 {
		n, err := q.readSpan([][]byte{p}, off)
		if err != nil {
			return err
		}
		p = p[n:]
		off += n
	}
	return nil
}

// readPacked reads from skip on in a compressed cluster.
func (q *Image) readPacked(v [][]byte, entry uint64, skip int64) error {
	return q.unpack.use(entry, func(dst []byte) error {
		off, n, err := q.packed(entry)
		if err != nil {
			return err
		}
		src := make([]byte, n)
		if err := q.file.ReadAt([][]byte{src}, off); err != nil {
			return err
		}
		return q.unpack.unpack(dst, src)
	}, func(cluster []byte) { iovec.Scatter(v, cluster[skip:]) })
}
