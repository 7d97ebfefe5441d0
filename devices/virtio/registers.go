package virtio

import "github.com/huskvm/husk/devices/virtio/queue"

// window is the 32 of 64 feature bits that a selector shows.
func window(features uint64, selector uint32) uint32 {
	if selector > 1 {
		return 0
	}
	return uint32(features >> (32 * selector))
}

// SetDeviceFeatureSelect selects which 32 bits DeviceFeatures shows.
func (s *State) SetDeviceFeatureSelect(v uint32) { s.set(&s.deviceFeatureSelect, v) }

// DeviceFeatureSelect is the selector of DeviceFeatures.
func (s *State) DeviceFeatureSelect() uint32 { return s.get(&s.deviceFeatureSelect) }

// SetDriverFeatureSelect selects which 32 bits DriverFeatures means.
func (s *State) SetDriverFeatureSelect(v uint32) { s.set(&s.driverFeatureSelect, v) }

// DriverFeatureSelect is the selector of DriverFeatures.
func (s *State) DriverFeatureSelect() uint32 { return s.get(&s.driverFeatureSelect) }

// SetQueueSelect selects the queue that the methods named Queue… mean. One that
// does not exist has size 0 and ignores what is written.
func (s *State) SetQueueSelect(v uint32) { s.set(&s.queueSelect, v) }

// QueueSelect is the selected queue.
func (s *State) QueueSelect() uint32 { return s.get(&s.queueSelect) }

func (s *State) set(selector *uint32, v uint32) {
	s.mu.Lock()
	defer s.unlock()
	if !s.resetting {
		*selector = v
	}
}

func (s *State) get(selector *uint32) uint32 {
	s.mu.Lock()
	defer s.unlock()
	return *selector
}

// DeviceFeatures are the selected features that are offered.
func (s *State) DeviceFeatures() uint32 {
	s.mu.Lock()
	defer s.unlock()
	return window(s.offered, s.deviceFeatureSelect)
}

// DriverFeatures are the selected features that the driver has accepted.
func (s *State) DriverFeatures() uint32 {
	s.mu.Lock()
	defer s.unlock()
	return window(s.acked, s.driverFeatureSelect)
}

// SetDriverFeatures takes the selected features that the driver accepts. They
// are judged when it sets FEATURES_OK; after that they stay.
func (s *State) SetDriverFeatures(v uint32) {
	s.mu.Lock()
	defer s.unlock()
	if s.resetting || s.status&StatusFeaturesOK != 0 {
		return
	}
	switch shift := 32 * s.driverFeatureSelect; s.driverFeatureSelect {
	case 0, 1:
		s.acked = s.acked&^(0xffffffff<<shift) | uint64(v)<<shift
	default:
		s.ackedMore = s.ackedMore || v != 0
	}
}

// NumQueues is how many queues the device has.
func (s *State) NumQueues() int { return len(s.queues) }

// selected returns the selected queue, or one that does not exist.
func (s *State) selected() *virtqueue {
	if s.queueSelect < uint32(len(s.queues)) {
		return &s.queues[s.queueSelect]
	}
	return new(virtqueue)
}

// settable returns the selected queue if the driver may set it up now.
func (s *State) settable() (q *virtqueue, ok bool) {
	q = s.selected()
	return q, q.max > 0 && !q.Enabled && !q.resetting && !s.resetting
}

// QueueMax is the largest size of the selected queue, 0 if it does not exist.
func (s *State) QueueMax() uint16 {
	s.mu.Lock()
	defer s.unlock()
	return s.selected().max
}

// QueueState is what the selected queue is set to: zero if it does not exist. Its
// positions are not kept up to date while the device works.
func (s *State) QueueState() queue.State {
	s.mu.Lock()
	defer s.unlock()
	return s.selected().State
}

// SetQueueSize sets the size of the selected queue. A size that cannot be is
// found out when the device starts.
func (s *State) SetQueueSize(n uint16) {
	s.mu.Lock()
	defer s.unlock()
	if q, ok := s.settable(); ok {
		q.Size = n
	}
}

// An Area is one of a queue's three parts in guest memory (virtio 1.2 §2.6).
type Area int

// The areas.
const (
	DescriptorArea Area = iota
	DriverArea
	DeviceArea
)

// SetQueueAddress sets 32 bits of the guest-physical address of one of the
// selected queue's areas: the upper ones, or the lower ones.
func (s *State) SetQueueAddress(a Area, upper bool, v uint32) {
	s.mu.Lock()
	defer s.unlock()
	q, ok := s.settable()
	if !ok {
		return
	}
	at := [...]*uint64{&q.Desc, &q.Driver, &q.Device}[a]
	if upper {
		*at = *at&0xffffffff | uint64(v)<<32
	} else {
		*at = *at&^0xffffffff | uint64(v)
	}
}

// EnableQueue enables the selected queue. After DRIVER_OK only a driver may that
// has negotiated RING_RESET.
func (s *State) EnableQueue() {
	s.mu.Lock()
	defer s.unlock()
	q, ok := s.settable()
	if !ok || s.status&StatusDriverOK != 0 && s.acked&FeatRingReset == 0 {
		return
	}
	q.Enabled = true
	s.restart = s.run != nil
	s.settle()
}

// DisableQueue stops the selected queue and puts its registers back: MMIO's
// QueueReady of 0. QueueState shows it as enabled until it has stopped, which
// DisableQueue awaits for a moment.
func (s *State) DisableQueue() {
	s.mu.Lock()
	defer s.unlock()
	s.stopQueue()
}

// ResetQueue is DisableQueue for a driver that has negotiated RING_RESET
// (virtio 1.2 §2.6.1), and nothing for others.
func (s *State) ResetQueue() {
	s.mu.Lock()
	defer s.unlock()
	if s.acked&FeatRingReset != 0 && s.status&StatusFeaturesOK != 0 {
		s.stopQueue()
	}
}

func (s *State) stopQueue() {
	q := s.selected()
	if q.max == 0 || s.resetting {
		return
	}
	q.resetting = true
	s.settle()
	s.await(func() bool { return !q.resetting })
}

// QueueResetting tells whether the selected queue has been told to stop and has
// not yet: what queue_reset reads as.
func (s *State) QueueResetting() bool {
	s.mu.Lock()
	defer s.unlock()
	return s.selected().resetting
}
