package netconf

import (
	"cmp"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Card is a network card.
type Card struct {
	Name  string
	Index int
	HW    net.HardwareAddr
	place string // of its device in /sys
}

// Cards are the machine's, in the order in which it has them: of their places on the
// bus. sys is /sys.
func Cards(sys string) ([]Card, error) {
	dirs, err := filepath.Glob(filepath.Join(sys, "class/net/*"))
	if err != nil {
		return nil, err
	}
	var list []Card
	for _, dir := range dirs {
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		if err != nil {
			continue // no card, such as lo
		}
		c := Card{Name: filepath.Base(dir), place: filepath.Dir(device)} // virtio2 is in that of the bus
		if c.Index, err = strconv.Atoi(content(dir, "ifindex")); err != nil {
			return nil, err
		}
		if c.HW, err = net.ParseMAC(content(dir, "address")); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Card) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.Index, b.Index))
	})
	return list, nil
}

// content is that of one of the kernel's files, "" where it cannot be read.
func content(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
