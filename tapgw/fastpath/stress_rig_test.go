package fastpath

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

// witness is a session whose outside address is a checksum of its key: what a program makes of a packet tells whether the
// record it used was that of the packet.
type witness struct {
	sample
	frame []byte
	sums  [2]uint32 // by uplink
	phase atomic.Uint64
	hit   atomic.Uint64 // round in which its ending met a packet
}

func newWitness(f uplinks.Family, i int) *witness {
	w := &witness{sample: samplesOf(f)[i%2]}
	w.src, w.sport, w.payload = w.src+uint32(i), w.sport+uint16(i), 8
	w.frame = w.build()
	for u := range w.sums {
		w.sums[u] = 0x64400000 | crc32.ChecksumIEEE(fmt.Append(nil, w.key(), u))&0x3fffff
	}
	return w
}

// outsideEnd is the endpoint that a witness has on one of the two uplinks.
type outsideEnd struct {
	uplink int
	port   uint16
}

// stress is a rig with two uplinks, a writer on one thread and one reader on another.
type stress struct {
	*rig
	outward   *ebpf.Program
	replies   [2]*ebpf.Program // by uplink
	witnesses []*witness
	at        atomic.Uint32 // the witness that the writer is working on
	buffer    []byte        // of the reader
	threads   sync.WaitGroup
	over      atomic.Bool
	failure   atomic.Pointer[string]
}

func newStress(t *testing.T, f uplinks.Family, witnesses int) *stress {
	s := &stress{rig: newRigOf(t, f), buffer: make([]byte, 2048)}
	s.outward = s.egress
	for u := range s.replies {
		id := uplinkID + uint8(u)
		program, err := s.loadIngress(variant{id, false})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { program.Close() })
		if err := s.SetUplink(id, f, usable); err != nil {
			t.Fatal(err)
		}
		s.replies[u] = program
	}
	for i := range witnesses {
		s.witnesses = append(s.witnesses, newWitness(f, i))
	}
	before := runtime.GOMAXPROCS(8) // no thread waits for another's turn in Go's scheduler
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	return s
}

// slow replaces the programs by slow ones.
func (s *stress) slow(t *testing.T) {
	t.Helper()
	load := func(name string, id uint8) *ebpf.Program {
		spec := s.spec.Copy()
		delay(t, spec.Programs[name])
		if err := setConstants(spec, map[string]any{"uplink_id": uint32(id)}); err != nil {
			t.Fatal(err)
		}
		program, err := s.program(spec, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { program.Close() })
		return program
	}
	s.outward = load(tapEgress, 0)
	for u := range s.replies {
		s.replies[u] = load(uplinkIngress, uplinkID+uint8(u))
	}
}

// wait ends all threads after the time, or when one of them has found something wrong.
func (s *stress) wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.AfterFunc(d, func() { s.over.Store(true) })
	defer timer.Stop()
	start := time.Now()
	s.threads.Wait()
	if what := s.failure.Load(); what != nil {
		t.Fatalf("after %v: %s", time.Since(start).Round(time.Millisecond), *what)
	}
}

func (s *stress) fail(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	s.failure.CompareAndSwap(nil, &what)
	s.over.Store(true)
}

// thread repeats step until the test is over, on a thread of its own that is bound to one CPU.
func (s *stress) thread(cpu int, step func()) {
	s.threads.Go(func() {
		runtime.LockOSThread() // for good, as the thread is bound
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			s.fail("bind to CPU %d: %v", cpu, err)
		}
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
			s.fail("set the slack of timers: %v", err)
		}
		for !s.over.Load() {
			step()
		}
	})
}

// cpus are two that the test may use; the same twice when there is only one.
func cpus(t *testing.T) (first, last int) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	first = -1
	for cpu, left := 0, set.Count(); left > 0; cpu++ {
		if !set.IsSet(cpu) {
			continue
		}
		if left--; first < 0 {
			first = cpu
		}
		last = cpu
	}
	return first, last
}

// nap sleeps for microseconds. What follows comes at a random point of what the CPU did meanwhile.
func nap(least, most int64) {
	_ = unix.Nanosleep(&unix.Timespec{Nsec: 1000 * (least + rand.Int64N(most-least))}, nil) // a signal may shorten it
}

// clock is the programs' own.
func (s *stress) clock() nat.Tick {
	now, err := kernelTick()
	if err != nil {
		s.fail("read the clock: %v", err)
	}
	return now
}

// kernelTick is the present tick as the programs know it.
func kernelTick() (nat.Tick, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now)
	return offset + nat.TickOf(time.Duration(now.Nano())), err
}

// open makes the session of a witness on an uplink, or moves it there.
func (s *stress) open(w *witness, uplink int, now nat.Tick) error {
	_, err := s.table.Open(w.key(), nat.Binding{
		Uplink: uplinkID + uint8(uplink), Generation: generation, Addresses: []packet.Addr{addressOf(s.family, w.sums[uplink])},
	}, now)
	return err
}

// out sends a packet of the witness and returns as what it left.
func (s *stress) out(w *witness) (end outsideEnd, hit bool) {
	got, hit := s.send(s.outward, w.frame)
	if !hit {
		return end, false
	}
	var p packet.Packet
	p.Decode(got)
	if numberOf(p.Src) == w.sums[1] {
		end.uplink = 1
	}
	end.port = p.SrcPort
	want := w.sample
	want.src, want.sport = w.sums[end.uplink], end.port
	s.compare(w, got, want)
	return end, true
}

// in sends a reply to what the witness is outside.
func (s *stress) in(w *witness, end outsideEnd) (hit bool) {
	reply := w.reply(&nat.Translation{Key: w.key(), Outside: addressOf(s.family, w.sums[end.uplink]), OutsidePort: end.port})
	got, hit := s.send(s.replies[end.uplink], reply.build())
	if hit {
		reply.dst, reply.dport = w.src, w.sport
		s.compare(w, got, reply)
	}
	return hit
}

func (s *stress) send(p *ebpf.Program, frame []byte) (got []byte, hit bool) {
	o := ebpf.RunOptions{Data: frame, DataOut: s.buffer[:cap(s.buffer)]}
	code, err := p.Run(&o)
	if err != nil {
		s.fail("run a program: %v", err)
	}
	return o.DataOut, code == codeHit
}

func (s *stress) compare(w *witness, got []byte, want sample) {
	if want := want.build(); !bytes.Equal(got[ip:], want[ip:]) {
		s.fail("a packet of %+v was translated as that of another session:\n%x, want\n%x", w.key(), got[ip:], want[ip:])
	}
}

var countsMaps = []string{fastpathMapCountsOut, fastpathMapCountsIn, fastpathMapCountsOut6, fastpathMapCountsIn6}

// delay makes a program wait for some twenty microseconds between finding a record and using it, where it looks up the
// record's counters. All else stays as it is compiled.
func delay(t *testing.T, p *ebpf.ProgramSpec) {
	t.Helper()
	const function = "delayed_lookup"
	counts, found := false, false
	for i := range p.Instructions {
		switch ins := &p.Instructions[i]; {
		case ins.IsLoadFromMap():
			counts = slices.Contains(countsMaps, ins.Reference())
		case counts && ins.IsBuiltinCall() && ins.Constant == int64(asm.FnMapLookupElem):
			*ins, found = asm.Call.Label(function), true
		}
	}
	if !found {
		t.Fatalf("%s does not look up counters between finding a record and using it", p.Name)
	}
	p.Instructions = append(p.Instructions, delayedLookup(function, p.Instructions[0].Source())...)
}

// delayedLookup is bpf_map_lookup_elem that takes its time. The kernel wants its signature and a line of source.
func delayedLookup(name string, source fmt.Stringer) asm.Instructions {
	const loop, readings = "delay", 1000
	pointer := &btf.Pointer{Target: (*btf.Void)(nil)}
	signature := &btf.FuncProto{Return: pointer, Params: []btf.FuncParam{{Name: "map", Type: pointer}, {Name: "key", Type: pointer}}}
	entry := asm.Mov.Reg(asm.R6, asm.R1).WithSymbol(name).WithSource(source)
	return asm.Instructions{
		btf.WithFuncMetadata(entry, &btf.Func{Name: name, Type: signature}),
		asm.Mov.Reg(asm.R7, asm.R2),
		asm.Mov.Imm(asm.R8, readings),
		asm.FnKtimeGetNs.Call().WithSymbol(loop),
		asm.Sub.Imm(asm.R8, 1),
		asm.JNE.Imm(asm.R8, 0, loop),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.FnMapLookupElem.Call(),
		asm.Return(),
	}
}
