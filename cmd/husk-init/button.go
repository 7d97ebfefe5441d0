package main

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
)

// An event of an input device (kernel include/uapi/linux/input.h, struct
// input_event): a time of 16 bytes, type, code, value.
const (
	eventSize  = 24
	eventType  = 16
	eventCode  = 18
	eventValue = 20
)

// A press of the power button (kernel include/uapi/linux/input-event-codes.h).
const (
	evKey    = 1   // EV_KEY
	keyPower = 116 // KEY_POWER
	pressed  = 1
)

// watchPowerButton calls off when an input device says that the power button
// was pressed. Which one is the button is not asked: nothing else says so.
func watchPowerButton(off func()) {
	devices, _ := filepath.Glob("/dev/input/event*")
	for _, device := range devices {
		f, err := os.Open(device)
		if err != nil {
			say("husk-init: power button: %v", err)
			continue
		}
		go func() {
			defer f.Close()
			if isPressed(f) {
				say("husk-init: the power button was pressed")
				off()
			}
		}()
	}
}

// isPressed waits for the press, or the end of the events.
func isPressed(events io.Reader) bool {
	var e [eventSize]byte
	for {
		if _, err := io.ReadFull(events, e[:]); err != nil {
			return false
		}
		le := binary.LittleEndian
		if le.Uint16(e[eventType:]) == evKey && le.Uint16(e[eventCode:]) == keyPower && le.Uint32(e[eventValue:]) == pressed {
			return true
		}
	}
}
