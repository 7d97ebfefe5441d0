package main

import (
	"fmt"
	"os"

	"github.com/huskvm/husk/internal/machine"
)

// openMachines are the user's machines.
func openMachines(e *env) (*machine.Machines, error) {
	dir, err := machine.DefaultDir(e.getenv)
	if err != nil {
		return nil, err
	}
	data, err := machine.DefaultData(e.getenv)
	if err != nil {
		return nil, err
	}
	return machine.Open(dir, data)
}

// machineProcess are the words that start a machine's process, for machine.Start and Run.
func machineProcess() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find husk's own file: %w", err)
	}
	return []string{self, machineProcessName}, nil
}
