package ethernet

// A Descriptor is a Queue whose frames pass through a descriptor of this process's,
// at which the host's kernel can send and receive by itself (vhost-net).
type Descriptor interface {
	// Control calls f with the descriptor, which stays open until f returns, and
	// returns its error.
	Control(f func(fd int) error) error
	// Check returns an error once no frame can pass any more: the network is gone.
	// Who has the kernel work there does not hear of it otherwise.
	Check() error
}
