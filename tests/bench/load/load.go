// Package load is what a guest's disk and network are measured with: the
// program that runs inside every guest, the server that it talks to, and the
// lines on the console by which it tells the host what it does.
package load

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// A Kind is what is loaded.
type Kind string

// The kinds.
const (
	Disk Kind = "disk"
	Net  Kind = "net"
)

// A Load is one thing that is measured.
type Load struct {
	Name string
	Kind Kind
	run  func(limit time.Duration) (Result, error)
}

// Names of loads.
const (
	ReadSeq    = "disk read 1 MiB"
	WriteSeq   = "disk write 1 MiB"
	ReadAlone  = "disk read 4 KiB, depth 1"
	WriteAlone = "disk write 4 KiB, depth 1"
	ReadDeep   = "disk read 4 KiB, depth 32"
	WriteDeep  = "disk write 4 KiB, depth 32"
	TCPOut     = "TCP guest to host"
	TCPIn      = "TCP host to guest"
	TCPTrips   = "TCP round trips"
)

// Loads are those of the kinds given, in the order in which a guest does them.
func Loads(kinds ...Kind) []Load {
	all := []Load{
		{ReadSeq, Disk, disk{size: 1 << 20, depth: 1}.run},
		{WriteSeq, Disk, disk{size: 1 << 20, depth: 1, write: true}.run},
		{ReadAlone, Disk, disk{size: 4096, depth: 1, random: true}.run},
		{WriteAlone, Disk, disk{size: 4096, depth: 1, random: true, write: true}.run},
		{ReadDeep, Disk, disk{size: 4096, depth: 32, random: true}.run},
		{WriteDeep, Disk, disk{size: 4096, depth: 32, random: true, write: true}.run},
		{TCPOut, Net, streamOut},
		{TCPIn, Net, streamIn},
		{TCPTrips, Net, roundTrips},
	}
	var list []Load
	for _, l := range all {
		for _, k := range kinds {
			if l.Kind == k {
				list = append(list, l)
			}
		}
	}
	return list
}

// A Result is what a load did.
type Result struct {
	Name    string  `json:"name"`
	Ops     uint64  `json:"ops"`   // requests, round trips; of a stream, calls
	Bytes   uint64  `json:"bytes"` // that went through
	Seconds float64 `json:"seconds"`
}

// Rate is requests a second.
func (r Result) Rate() float64 { return float64(r.Ops) / r.Seconds }

// Throughput is bytes a second.
func (r Result) Throughput() float64 { return float64(r.Bytes) / r.Seconds }

// An Event is what a line of the console says.
type Event int

// The events. Begin comes half a second before the load does anything, and End
// is as short as can be: what printing it costs is counted as the load's.
const (
	None     Event = iota // an ordinary line
	Begin                 // text: the load's name
	End                   //
	Measured              // text: a Result as JSON
	Failed                // text: why nothing more will come
	Done                  // nothing more will come
)

// marks begin the lines of events.
var marks = map[Event]string{Begin: "@bench+", End: "@bench-", Measured: "@bench=", Failed: "@bench!", Done: "@bench."}

// Parse reads a line of the console. What a terminal is told may stand before
// the mark.
func Parse(line string) (Event, string) {
	for e, mark := range marks {
		if _, text, ok := strings.Cut(line, mark); ok {
			return e, strings.TrimSpace(text)
		}
	}
	return None, ""
}

// pause is how long the host has, after a line that begins a load, to read its
// counters.
const pause = 500 * time.Millisecond

// Guest does loads, for about limit each, and tells the host by lines on console.
func Guest(console io.Writer, loads []Load, limit time.Duration) {
	say := func(e Event, text string) { fmt.Fprintln(console, Line(e, text)) }
	for _, l := range loads {
		// What is done for the first time is slow: memory, caches, and in the lab
		// the code itself.
		_, err := l.run(limit / 2)
		if err != nil {
			say(Failed, l.Name+": "+err.Error())
			return
		}
		say(Begin, l.Name)
		time.Sleep(pause)
		r, err := l.run(limit)
		say(End, "")
		if err != nil {
			say(Failed, l.Name+": "+err.Error())
			return
		}
		r.Name = l.Name
		text, err := json.Marshal(r)
		if err != nil {
			say(Failed, err.Error()) // a time of zero: the rate would be no number
			return
		}
		say(Measured, string(text))
	}
	say(Done, "")
}

// Line is a line that says an event.
func Line(e Event, text string) string { return marks[e] + text }
