package netdev

import (
	"crypto/sha256"
	"fmt"
	"net"
)

// StableMAC returns the address of network card i of the machine of that name:
// always the same, locally administered (IEEE 802 §8.4), so that a guest keeps
// its lease and its interface names from one boot to the next. 46 bits of it
// come from a hash, so two names on a network do not meet.
func StableMAC(name string, i int) net.HardwareAddr {
	sum := sha256.Sum256(fmt.Appendf(nil, "husk network card %d of %s", i, name))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2 // not multicast; local
	return mac
}
