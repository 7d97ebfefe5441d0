package net

import "github.com/huskvm/husk/devices/ethernet"

// Feature bits (virtio 1.2 §5.1.3).
const (
	featCsum              = 1 << 0  // VIRTIO_NET_F_CSUM
	featGuestCsum         = 1 << 1  // VIRTIO_NET_F_GUEST_CSUM
	featCtrlGuestOffloads = 1 << 2  // VIRTIO_NET_F_CTRL_GUEST_OFFLOADS
	featMTU               = 1 << 3  // VIRTIO_NET_F_MTU
	featMAC               = 1 << 5  // VIRTIO_NET_F_MAC
	featGuestTSO4         = 1 << 7  // VIRTIO_NET_F_GUEST_TSO4
	featGuestTSO6         = 1 << 8  // VIRTIO_NET_F_GUEST_TSO6
	featGuestECN          = 1 << 9  // VIRTIO_NET_F_GUEST_ECN
	featHostTSO4          = 1 << 11 // VIRTIO_NET_F_HOST_TSO4
	featHostTSO6          = 1 << 12 // VIRTIO_NET_F_HOST_TSO6
	featHostECN           = 1 << 13 // VIRTIO_NET_F_HOST_ECN
	featMrgRxbuf          = 1 << 15 // VIRTIO_NET_F_MRG_RXBUF
	featStatus            = 1 << 16 // VIRTIO_NET_F_STATUS
	featCtrlVQ            = 1 << 17 // VIRTIO_NET_F_CTRL_VQ
	featCtrlRx            = 1 << 18 // VIRTIO_NET_F_CTRL_RX
	featCtrlVLAN          = 1 << 19 // VIRTIO_NET_F_CTRL_VLAN
	featCtrlRxExtra       = 1 << 20 // VIRTIO_NET_F_CTRL_RX_EXTRA
	featMQ                = 1 << 22 // VIRTIO_NET_F_MQ
	featCtrlMACAddr       = 1 << 23 // VIRTIO_NET_F_CTRL_MAC_ADDR
	featSpeedDuplex       = 1 << 63 // VIRTIO_NET_F_SPEED_DUPLEX

	guestOffloads = featGuestCsum | featGuestTSO4 | featGuestTSO6 | featGuestECN
)

// offloadBits are the features that an offload is: what the link takes from the
// guest, and what the guest takes from the link.
var offloadBits = [...]struct {
	offload     ethernet.Offloads
	host, guest uint64
}{
	{ethernet.Checksum, featCsum, featGuestCsum},
	{ethernet.TSO4, featHostTSO4, featGuestTSO4},
	{ethernet.TSO6, featHostTSO6, featGuestTSO6},
	{ethernet.ECN, featHostECN, featGuestECN},
}

// offered are the features of a device on a link.
func offered(info ethernet.Info) uint64 {
	f := uint64(featMAC | featMrgRxbuf | featStatus | featSpeedDuplex |
		featCtrlVQ | featCtrlRx | featCtrlRxExtra | featCtrlVLAN | featCtrlMACAddr)
	for _, b := range offloadBits {
		if valid(info.Takes)&b.offload != 0 {
			f |= b.host
		}
		if valid(info.Gives)&b.offload != 0 {
			f |= b.guest | featCtrlGuestOffloads
		}
	}
	if info.MTU >= minMTU && info.MTU <= maxMTU {
		f |= featMTU
	}
	if info.Queues > 1 {
		f |= featMQ
	}
	return f
}

// fromGuest is what the guest may leave to the link.
func fromGuest(features uint64) (o ethernet.Offloads) {
	for _, b := range offloadBits {
		if features&b.host != 0 {
			o |= b.offload
		}
	}
	return valid(o)
}

// toGuest is what the link may leave to the guest.
func toGuest(features uint64) (o ethernet.Offloads) {
	for _, b := range offloadBits {
		if features&b.guest != 0 {
			o |= b.offload
		}
	}
	return valid(o)
}

// valid leaves out what stands without what it takes (§5.1.3.1).
func valid(o ethernet.Offloads) ethernet.Offloads {
	if o&ethernet.Checksum == 0 {
		return 0
	}
	if o&(ethernet.TSO4|ethernet.TSO6) == 0 {
		o &^= ethernet.ECN
	}
	return o
}
