#include "textflag.h"

// func out(port uint16, size int, value uint32)
TEXT ·out(SB), NOSPLIT, $0-20
	MOVW port+0(FP), DX
	MOVQ size+8(FP), CX
	MOVL value+16(FP), AX
	CMPQ CX, $1
	JEQ  byte
	CMPQ CX, $2
	JEQ  word
	OUTL
	RET
byte:
	OUTB
	RET
word:
	OUTW
	RET

// func in(port uint16, size int) uint32
TEXT ·in(SB), NOSPLIT, $0-20
	MOVW port+0(FP), DX
	MOVQ size+8(FP), CX
	XORL AX, AX
	CMPQ CX, $1
	JEQ  byte
	CMPQ CX, $2
	JEQ  word
	INL
	JMP  done
byte:
	INB
	JMP  done
word:
	INW
done:
	MOVL AX, ret+16(FP)
	RET
