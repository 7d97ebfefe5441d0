// Command hostile is a guest that tries what no driver would: as root in a Linux
// guest it writes random and almost right values to the machine's ports, to the
// registers, queues and configuration of its virtio devices, for a time. What
// its host then has to show is that it is still there, and that a disk which was
// left alone reads right.
//
// It wants to be read, so it does what the machine must survive, and leaves out
// what only this guest would not: rings and buffers are in its own memory,
// messages of MSI-X are ordinary interrupts, and the serial ports are spared.
// Give the guest at most 2 GiB of RAM: an address above 4 GiB then is none.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

type options struct {
	length  time.Duration
	seed    uint64
	threads int
	spare   string
	power   bool
}

func main() {
	var o options
	flag.DurationVar(&o.length, "time", 10*time.Second, "how long to attack")
	flag.Uint64Var(&o.seed, "seed", 0, "makes the same attack again; 0 for the clock's")
	flag.IntVar(&o.threads, "threads", 2, "attackers at a time")
	flag.StringVar(&o.spare, "spare", "", "the disk to leave alone, as /dev/vdb: it is read all the time")
	flag.BoolVar(&o.power, "power", false, "try ports that end the machine, too")
	flag.Parse()
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	fmt.Printf("hostile: seed %d, for %v\n", o.seed, o.length)
	if err := run(o); err != nil {
		fmt.Printf("hostile: failed: %v\n", err)
		os.Exit(1)
	}
}

func run(o options) error {
	spare, err := openSpare(o.spare)
	if err != nil {
		return err
	}
	devices, err := findDevices(o.spare)
	if err != nil {
		return err
	}
	if len(devices) == 0 {
		return errors.New("there is no virtio device to attack")
	}
	mem, err := newPages(64)
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := d.take(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		fmt.Printf("hostile: attacks %s\n", d)
	}
	holes := openMemory(devices)
	ports, err := openPorts(o.power)
	if err != nil {
		fmt.Printf("hostile: no ports: %v\n", err)
	}

	stop := make(chan struct{})
	var accesses atomic.Uint64
	var attackers, readers sync.WaitGroup
	for i := range o.threads {
		a := &attack{
			Rand: rand.New(rand.NewPCG(o.seed, uint64(i))), devices: devices, mem: mem, ports: ports, holes: holes, count: &accesses,
		}
		attackers.Go(func() {
			runtime.LockOSThread() // ports are open for one thread
			if ports != nil && !ports.allow() {
				a.ports = nil
			}
			for {
				select {
				case <-stop:
					return
				default:
					a.move()
				}
			}
		})
	}
	var read uint64
	var wrong error
	readers.Go(func() { read, wrong = spare.readUntil(stop) })
	time.Sleep(o.length)
	close(stop)
	attackers.Wait()
	for _, d := range devices {
		d.silence()
	}
	readers.Wait()
	if wrong == nil {
		wrong = spare.check()
	}
	if wrong != nil {
		return wrong
	}
	for _, d := range devices {
		if err := d.giveBack(); err != nil {
			return fmt.Errorf("%s does not come back: %w", d.name, err)
		}
	}
	fmt.Printf("hostile: survived %d accesses; %s was read %d times, and right; %d devices work again\n",
		accesses.Load(), o.spare, read, len(devices))
	return nil
}
