package i8042

func (s *state) status() byte {
	status := byte(statusNoLock) | s.ram[0]&ctrSystem
	if s.lastWasCmd {
		status |= statusCommand
	}
	if s.queued > 0 {
		status |= statusFull | s.queue[0].status
	}
	return status
}

// interrupts returns the output port's interrupt bits: one for the byte that
// waits, by where it comes from, if its interrupt is on.
func (s *state) interrupts() byte {
	switch {
	case s.queued == 0:
	case s.queue[0].status&statusAux == 0 && s.ram[0]&ctrKeyboardInt != 0:
		return outKeyboardInt
	case s.queue[0].status&statusAux != 0 && s.ram[0]&ctrAuxInt != 0:
		return outAuxInt
	}
	return 0
}

// reply queues a byte for the data port. A guest that never reads loses it.
func (s *state) reply(data, status byte) {
	if s.queued < queueSize {
		s.queue[s.queued] = reply{data, status}
		s.queued++
	}
}

// execute runs a command, and tells whether it resets the machine.
func (s *state) execute(cmd byte) (reset bool) {
	s.lastWasCmd = true
	s.command = 0
	switch {
	case cmd&0xe0 == cmdReadRAM:
		s.reply(s.ram[cmd&0x1f], 0)
	case cmd >= cmdPulse:
		return cmd&outNoReset == 0
	case cmd&0xe0 == cmdWriteRAM:
		s.command = cmd
	}
	switch cmd {
	case cmdWriteOutputPort, cmdKeyboardLoop, cmdAuxLoop, cmdAuxSend:
		s.command = cmd
	case cmdAuxDisable:
		s.ram[0] |= ctrAuxDisable
	case cmdAuxEnable:
		s.ram[0] &^= ctrAuxDisable
	case cmdKeyboardDisable:
		s.ram[0] |= ctrKeyboardDisable
	case cmdKeyboardEnable:
		s.ram[0] &^= ctrKeyboardDisable
	case cmdSelfTest:
		s.ram[0] |= ctrSystem
		s.reply(selfTestPassed, 0)
	case cmdAuxTest, cmdKeyboardTest:
		s.reply(testPassed, 0)
	case cmdReadInputPort:
		s.reply(inputPortIdle, 0)
	case cmdReadOutputPort:
		s.reply(s.outputPort&^(outKeyboardInt|outAuxInt)|s.interrupts(), 0)
	}
	return false
}

// data takes a byte written to the data port, and tells whether it resets the
// machine.
func (s *state) data(v byte) (reset bool) {
	cmd := s.command
	s.command = 0
	s.lastWasCmd = false
	switch {
	case cmd == cmdWriteOutputPort:
		s.outputPort = v
		return v&outNoReset == 0
	case cmd == cmdKeyboardLoop:
		s.reply(v, 0)
	case cmd == cmdAuxLoop:
		s.reply(v, statusAux)
	case cmd == cmdAuxSend:
		s.ram[0] &^= ctrAuxDisable
		s.reply(noAnswer, statusAux|statusTimeout)
	case cmd&0xe0 == cmdWriteRAM:
		s.ram[cmd&0x1f] = v
	default: // for the keyboard: sending to it switches its interface on
		s.ram[0] &^= ctrKeyboardDisable
		s.reply(noAnswer, statusTimeout)
	}
	return false
}
