package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/huskvm/husk/internal/machine"
)

// A createdMachine is one that has been created and waits to be started.
type createdMachine interface {
	ID() string
	// Start and Run are machine.Machine's.
	Start(ctx context.Context) error
	Run(ctx context.Context, s machine.Streams) (int, error)
	Close() error
}

// A startable is a machine and what starts its process.
type startable struct {
	*machine.Machine
	argv []string
}

func (s startable) Start(ctx context.Context) error { return s.Machine.Start(ctx, s.argv) }

func (s startable) Run(ctx context.Context, streams machine.Streams) (int, error) {
	return s.Machine.Run(ctx, s.argv, streams)
}

// createMachine makes one of the user's machines.
func createMachine(ctx context.Context, e *env, spec machine.Spec) (createdMachine, error) {
	all, err := openMachines(e)
	if err != nil {
		return nil, err
	}
	argv, err := machineProcess()
	if err != nil {
		return nil, err
	}
	m, err := all.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return startable{m, argv}, nil
}

// An idFile is where --cidfile has the machine's ID written; nil for nowhere.
type idFile struct {
	file    *os.File
	written bool
}

// openIDFile makes it, so that no other machine has the same.
func (r *containerRun) openIDFile() (*idFile, error) {
	path := r.flags.cidFile
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("--cidfile: container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("--cidfile: %w", err)
	}
	return &idFile{file: f}, nil
}

func (i *idFile) write(id string) error {
	if i == nil {
		return nil
	}
	if _, err := i.file.WriteString(id); err != nil {
		return fmt.Errorf("--cidfile: %w", err)
	}
	i.written = true
	return nil
}

// discard closes it, and removes one without an ID.
func (i *idFile) discard() {
	if i == nil {
		return
	}
	_ = i.file.Close()
	if !i.written {
		_ = os.Remove(i.file.Name())
	}
}
