package aml

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The expected bytes are worked out by hand from ACPI 6.5 §20.2. That the
// terms make sense together is for iasl to say, in the tests of firmware/acpi.
func TestTerms(t *testing.T) {
	for _, tt := range []struct {
		name string
		got  Term
		want []byte
	}{
		{"zero", Integer(0), []byte{0}},
		{"one", Integer(1), []byte{1}},
		{"byte", Integer(0xFF), []byte{0x0A, 0xFF}},
		{"word", Integer(0x100), []byte{0x0B, 0x00, 0x01}},
		{"double word", Integer(0x1234_5678), []byte{0x0C, 0x78, 0x56, 0x34, 0x12}},
		{"quad word", Integer(1 << 32), []byte{0x0E, 0, 0, 0, 0, 1, 0, 0, 0}},
		{"string", String("hi"), []byte{0x0D, 'h', 'i', 0}},
		{"EISA id", HardwareID("PNP0501"), []byte{0x0C, 0x41, 0xD0, 0x05, 0x01}},
		{"EISA id with a letter", HardwareID("PNP0C0C"), []byte{0x0C, 0x41, 0xD0, 0x0C, 0x0C}},
		{"long id", HardwareID("ACPI0013"), []byte("\x0DACPI0013\x00")},
		{"short name", Path("GED"), []byte("GED_")},
		{"rooted name", Path(`\_S5`), []byte(`\_S5_`)},
		{"two segments", Path(`\_SB.GED`), []byte("\\\x2E_SB_GED_")},
		{"three segments", Path("A.B.C"), []byte("\x2F\x03A___B___C___")},
		{"name", Name("_UID", Integer(1)), []byte("\x08_UID\x01")},
		{"device", Device("D", Name("_UID", Integer(0))), []byte("\x5B\x82\x0BD___\x08_UID\x00")},
		{"scope", Scope(`\_SB`), []byte("\x10\x06\\_SB_")},
		{"method", Method("_EVT", 1, Store(Integer(1), Local(2))), []byte("\x14\x09_EVT\x09\x70\x01\x62")},
		{"if", If(And(Local(0), Integer(4)), Notify("B", 0x80)), []byte("\xA0\x0D\x7B\x60\x0A\x04\x00\x86B___\x0A\x80")},
		{"else", Else(Return(Arg(3))), []byte{0xA1, 3, 0xA4, 0x6B}},
		{"not equal", Not(Equal(Arg(1), Integer(1))), []byte{0x92, 0x93, 0x69, 0x01}},
		{"set bits", SetBits(Path("F"), 4), []byte("\x7DF___\x0A\x04F___")},
		{"double word field", DWordField(Arg(3), 8, "F"), []byte("\x8A\x6B\x0A\x08F___")},
		{"buffer", Buffer([]byte{7, 8, 9}), []byte{0x11, 6, 0x0A, 3, 7, 8, 9}},
		{"UUID", UUID("33DB4D5B-1FF7-401C-9657-7441C03DD766"), []byte{
			0x11, 0x13, 0x0A, 0x10,
			0x5B, 0x4D, 0xDB, 0x33, 0xF7, 0x1F, 0x1C, 0x40, 0x96, 0x57, 0x74, 0x41, 0xC0, 0x3D, 0xD7, 0x66,
		}},
		{"package", Package(Integer(0), Integer(5)), []byte{0x12, 5, 2, 0, 0x0A, 5}},
		{"region", PortRegion("R", 0x603, 1), []byte("\x5B\x80R___\x01\x0B\x03\x06\x01")},
		{"fields", ByteFields("R", "F", "G"), []byte("\x5B\x81\x10R___\x41F___\x08G___\x08")},
		{"no resources", ResourceTemplate(), []byte{0x11, 5, 0x0A, 2, 0x79, 0}},
		{"resources", ResourceTemplate(IO(0x3F8, 8), Interrupt(4, Edge)), []byte{
			0x11, 0x16, 0x0A, 0x13,
			0x47, 1, 0xF8, 0x03, 0xF8, 0x03, 1, 8,
			0x89, 6, 0, 3, 1, 4, 0, 0, 0,
			0x79, 0,
		}},
		{"bus numbers", Term(BusNumbers(0, 255)), []byte{0x88, 13, 0, 2, 0x0C, 0, 0, 0, 0, 0, 0xFF, 0, 0, 0, 0, 1}},
		{"port window", Term(PortWindow(0x1000, 0xF000)), []byte{0x88, 13, 0, 1, 0x0C, 3, 0, 0, 0, 0x10, 0xFF, 0xFF, 0, 0, 0, 0xF0}},
		{"memory", Term(DWordMemory(Producer, 0xC000_0000, 0x1000_0000)), []byte{
			0x87, 23, 0, 0, 0x0C, 1,
			0, 0, 0, 0, 0, 0, 0, 0xC0, 0xFF, 0xFF, 0xFF, 0xCF, 0, 0, 0, 0, 0, 0, 0, 0x10,
		}},
		{"much memory", Term(QWordMemory(Consumer, 1<<40, 1<<32)), []byte{
			0x8A, 43, 0, 0, 0x0D, 1,
			0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 1, 0, 0,
			0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
		}},
		{"fixed memory", Term(FixedMemory(0xD000_0200, 0x200)), []byte{0x86, 9, 0, 1, 0, 2, 0, 0xD0, 0, 2, 0, 0}},
		{"level", Term(Interrupt(9, Level)), []byte{0x89, 6, 0, 1, 1, 9, 0, 0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Equal(t, tt.want, []byte(tt.got))
		})
	}
}

// The length counts itself, so it jumps where it needs another byte.
func TestPackageLength(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want []byte
	}{
		{0, []byte{1}},
		{62, []byte{63}},
		{63, []byte{0x41, 0x04}},
		{1<<12 - 3, []byte{0x4F, 0xFF}},
		{1<<12 - 2, []byte{0x81, 0x00, 0x01}},
		{1<<20 - 4, []byte{0x8F, 0xFF, 0xFF}},
		{1<<20 - 3, []byte{0xC1, 0x00, 0x00, 0x01}},
	} {
		require.Equal(t, tt.want, []byte(packageLength(tt.n)), "%d", tt.n)
	}
}

func TestBadNamesPanic(t *testing.T) {
	for _, name := range []string{"", "LONGER", `\`, "A..B"} {
		require.Panics(t, func() { Path(name) }, name)
	}
}

func TestBadUUIDsPanic(t *testing.T) {
	for _, id := range []string{"", "33DB4D5B", "33DB4D5B-1FF7-401C-9657-7441C03DD76G", "33DB4D5B-1FF7-401C-9657-7441C03DD76600"} {
		require.Panics(t, func() { UUID(id) }, id)
	}
}

func TestTermsDoNotShareMemory(t *testing.T) {
	value := Integer(5)
	before := slices.Clone(value)
	device := Device("D", Name("A", value), Name("B", value))
	clear(device)
	require.Equal(t, before, value)
}
