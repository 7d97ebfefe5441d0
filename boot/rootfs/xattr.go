package rootfs

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// schily is what PAX records that are extended attributes begin with, in the archives of
// GNU tar, Docker and containerd.
const schily = "SCHILY.xattr."

// namespaces are the beginnings that EROFS has numbers for (erofs_fs.h,
// EROFS_XATTR_INDEX_*), which are the ones that Linux has. The ACLs are whole names.
var namespaces = []struct {
	prefix string
	index  uint8
	whole  bool
}{
	{"user.", 1, false},
	{"system.posix_acl_access", 2, true},
	{"system.posix_acl_default", 3, true},
	{"trusted.", 4, false},
	{"security.", 6, false},
}

const (
	xattrHeader = 12 // struct erofs_xattr_ibody_header
	xattrEntry  = 4  // struct erofs_xattr_entry
	// maxXattrs is what i_xattr_icount can count, in units of 4 bytes.
	maxXattrs = xattrHeader + 4*(math.MaxUint16-1)
)

// xattrs encodes the extended attributes of an entry, sorted by name, or gives nil if it
// has none. Names that Linux would not store are passed over, as containerd does.
func (l *layer) xattrs(h *tar.Header, kind uint16) ([]byte, error) {
	var names []string
	for key := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, schily); ok {
			names = append(names, name)
		}
	}
	if names == nil {
		return nil, nil
	}
	slices.Sort(names)
	body := make([]byte, xattrHeader, 64)
	for _, name := range names {
		index, rest, ok := namespace(name, kind)
		if !ok {
			l.stats.Ignored++
			continue
		}
		value := h.PAXRecords[schily+name]
		if len(name) > maxName || len(value) > math.MaxUint16 {
			return nil, fmt.Errorf("extended attribute %.40q: a name of %d and a value of %d bytes; at most %d and %d are possible",
				name, len(name), len(value), maxName, math.MaxUint16)
		}
		body = append(body, uint8(len(rest)), index)
		body = binary.LittleEndian.AppendUint16(body, uint16(len(value)))
		body = append(append(body, rest...), value...)
		body = append(body, make([]byte, -len(body)&3)...)
		if len(body) > maxXattrs {
			return nil, fmt.Errorf("more than %d bytes of extended attributes", maxXattrs)
		}
	}
	if len(body) == xattrHeader {
		return nil, nil
	}
	return body, nil
}

// namespace takes an attribute's name apart; not ok are names that no file of that kind
// has in Linux, and those by which overlayfs keeps books: in a real overlay nobody sees
// them, but in an image they would command the guest's.
func namespace(name string, kind uint16) (index uint8, rest string, ok bool) {
	if strings.HasPrefix(name, "trusted.overlay.") || strings.Contains(name, "\x00") {
		return 0, "", false
	}
	for _, n := range namespaces {
		rest, found := strings.CutPrefix(name, n.prefix)
		if !found || n.whole != (rest == "") {
			continue
		}
		// user.* is for files and directories only (xattr(7)).
		return n.index, rest, n.index != 1 || kind == typeFile || kind == typeDir
	}
	return 0, "", false
}
