package user

import (
	"bytes"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// maxResolvers is how many resolvers there can be: resolv.conf(5)'s MAXNS.
const maxResolvers = 3

// resolvers are the host's, as resolv.conf(5) names them. The file is read again
// when it has changed, since hosts move between networks.
type resolvers struct {
	path string
	port uint16

	mu   sync.Mutex
	time time.Time
	list []netip.AddrPort
}

func (r *resolvers) servers() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.path)
	if err == nil && info.ModTime().Equal(r.time) && r.list != nil {
		return r.list
	}
	var text []byte
	if err == nil && info.Size() <= 1<<20 {
		text, err = os.ReadFile(r.path)
	}
	r.list, r.time = r.list[:0:0], time.Time{}
	for _, a := range parseResolvConf(text) {
		r.list = append(r.list, netip.AddrPortFrom(a, r.port))
	}
	if err == nil {
		r.time = info.ModTime()
	}
	return r.list
}

// parseResolvConf returns the resolvers that a file names; without any that is the
// host itself.
func parseResolvConf(text []byte) []netip.Addr {
	var list []netip.Addr
	for line := range bytes.Lines(text) {
		words := strings.Fields(string(line))
		if len(words) < 2 || words[0] != "nameserver" || len(list) == maxResolvers {
			continue
		}
		if a, err := netip.ParseAddr(words[1]); err == nil {
			list = append(list, a.Unmap())
		}
	}
	if len(list) == 0 {
		list = append(list, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return list
}
