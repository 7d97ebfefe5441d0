package acpi

import "encoding/binary"

// ResetVector is the guest-physical address of F000:FFF0, where a PC's BIOS is
// entered to restart the machine. ResetCode belongs there.
const ResetVector = 0xFFFF0

// ResetCode is what a guest finds at ResetVector, in real mode: a store to the
// reset register, in at most 16 bytes.
//
// Linux needs it. It believes that a hardware-reduced machine is to be reset
// through UEFI, so it skips RESET_REG unless the command line says reboot=acpi;
// and where there is no UEFI it goes on to the BIOS, here. Without the code, a
// reboot would run through empty memory for ever.
func (p Power) ResetCode() []byte {
	code := []byte{
		0xFA, // cli
		0xBA, // mov dx, the port
	}
	code = binary.LittleEndian.AppendUint16(code, p.Reset)
	return append(code,
		0xB0, p.ResetValue, // mov al, the value
		0xEE,       // out dx, al
		0xF4,       // hlt
		0xEB, 0xFD, // jmp to the hlt
	)
}
