package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/huskvm/husk/internal/kstack"
	"github.com/huskvm/husk/internal/smoke/result"
	"github.com/huskvm/husk/vmm"
)

// A VM is a machine as this package drives it; *vmm.VM is one.
type VM interface {
	Run(ctx context.Context) (*vmm.Result, error)
	PowerButton()
	Dumps(ctx context.Context) ([]vmm.Dump, error)
	kstack.Memory
	Close() error
}

// A Maker makes a machine with a serial port. A machine that is made again boots anew.
type Maker func(serial *vmm.Serial) (VM, error)

// Serve runs a machine for who is on the other side of socket, up to its end or the
// other side's. reboots is how many times the guest may reboot; the one after that
// ends it. openKernel opens what names places in the guest's kernel; it is called when
// they are asked for, and what it opens is not kept: it is large.
func Serve(ctx context.Context, socket io.ReadWriteCloser, reboots int, newVM Maker, openKernel func() (Kernel, error)) {
	s := &server{start: time.Now(), out: json.NewEncoder(socket), openKernel: openKernel}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	// A pipe of the kernel's: a machine's wait for input can be ended, when the next
	// boot's begins.
	if s.in, s.keys, err = os.Pipe(); err != nil {
		s.tell(Event{End: &End{Error: err.Error(), Unstarted: true}})
		return
	}
	defer s.in.Close()
	typing := make(chan []byte, queued)
	go s.typeKeys(ctx, typing)
	go func() {
		defer cancel()
		s.listen(ctx, socket, typing)
	}()
	end := s.run(ctx, reboots, newVM)
	s.tell(Event{End: &end})
}

type server struct {
	start      time.Time
	openKernel func() (Kernel, error)
	in, keys   *os.File // the guest's input

	mu  sync.Mutex // for out
	out *json.Encoder

	vmMu sync.Mutex
	vm   VM // nil while none runs
}

// tell sends an event. When nobody listens any more, listen finds out.
func (s *server) tell(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.At = time.Since(s.start)
	_ = s.out.Encode(e)
}

// Write tells of console output: it is the guest's serial port's other end.
func (s *server) Write(p []byte) (int, error) {
	s.tell(Event{Console: p})
	return len(p), nil
}

// listen follows requests until there are no more.
func (s *server) listen(ctx context.Context, socket io.Reader, typing chan<- []byte) {
	in := json.NewDecoder(socket)
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			if !errors.Is(err, io.EOF) {
				fmt.Fprintf(os.Stderr, "husk: the smoke test's requests: %v\n", err)
			}
			return
		}
		switch {
		case r.Send != nil:
			select {
			case typing <- r.Send:
			case <-ctx.Done():
				return
			}
		case r.Power:
			if vm := s.current(); vm != nil {
				vm.PowerButton()
			}
		case r.Dump:
			s.dump(ctx)
		}
	}
}

// typeKeys gives the guest what is sent to it, as fast as it takes that.
func (s *server) typeKeys(ctx context.Context, typing <-chan []byte) {
	for {
		select {
		case b := <-typing:
			if _, err := s.keys.Write(b); err != nil {
				return
			}
		case <-ctx.Done():
			_ = s.keys.Close()
			return
		}
	}
}

func (s *server) current() VM {
	s.vmMu.Lock()
	defer s.vmMu.Unlock()
	return s.vm
}

// dumpTime is how long the processors have to say where they are.
const dumpTime = 10 * time.Second

func (s *server) dump(ctx context.Context) {
	vm := s.current()
	if vm == nil {
		s.tell(Event{Dump: &Dump{Error: "the machine does not run"}})
		return
	}
	ctx, cancel := context.WithTimeout(ctx, dumpTime)
	defer cancel()
	dumps, err := vm.Dumps(ctx)
	vcpus, unnamed := s.describe(dumps, vm)
	answer := &Dump{VCPUs: vcpus}
	if err = errors.Join(err, unnamed); err != nil {
		answer.Error = err.Error()
	}
	s.tell(Event{Dump: answer})
}

// run boots the machine, again after each reboot that is allowed.
func (s *server) run(ctx context.Context, reboots int, newVM Maker) End {
	for boot := 0; ; boot++ {
		vm, err := newVM(&vmm.Serial{In: s.in, Out: s})
		if err != nil {
			return End{Error: err.Error(), Unstarted: boot == 0}
		}
		s.setVM(vm)
		s.tell(Event{Entered: true})
		r, err := vm.Run(ctx)
		s.setVM(nil)
		var last []result.VCPU
		if err == nil && r.Dump != nil {
			last, _ = s.describe([]vmm.Dump{*r.Dump}, vm)
		}
		if err = errors.Join(err, vm.Close()); err != nil {
			return End{Error: err.Error()}
		}
		switch {
		case r.Outcome == vmm.Cancelled:
			return End{}
		case r.Outcome == vmm.Reboot && boot < reboots:
			continue
		}
		return End{Guest: &result.Guest{Outcome: string(r.Outcome), Code: r.Code, Detail: r.Detail}, VCPUs: last}
	}
}

func (s *server) setVM(vm VM) {
	s.vmMu.Lock()
	defer s.vmMu.Unlock()
	s.vm = vm
}
