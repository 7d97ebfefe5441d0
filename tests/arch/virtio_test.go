package arch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDevicesDoNotKnowTheirTransport, nor a transport its devices: any device
// works behind any transport.
func TestDevicesDoNotKnowTheirTransport(t *testing.T) {
	transports := []string{"devices/virtio/pci", "devices/virtio/mmio"}
	for pkg, deps := range imports(t) {
		if !under(pkg, "devices/virtio") {
			continue
		}
		for _, dep := range deps {
			allowed := []string{"devices/virtio", "devices/virtio/queue", "devices"}
			if pkg == "devices/virtio/pci" {
				allowed = append(allowed, "devices/pci")
			}
			if under(pkg, transports...) {
				require.Contains(t, allowed, dep, "%s depends on it", pkg)
			} else {
				require.False(t, under(dep, append(transports, "devices/pci")...), "%s depends on %s", pkg, dep)
			}
		}
	}
}
