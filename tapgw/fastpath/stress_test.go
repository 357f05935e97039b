package fastpath

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/nat"
	"tapgw/uplinks"
)

// Phases of a witness in a round of frozen. Its phase word is round<<2 | phase.
const (
	gone    = iota
	opening // may be there already
	present // and is bound anew
	ending  // may be there still
)

var phaseNames = [...]string{"ended", "being opened", "being moved", "being swept"}

const everyone = 1 << 16 // of stress.at

// long is longer than any lifetime.
const long = 3 * time.Hour

// frozen is a writer that is stopped at random instructions, and a reader that looks at the table while it stands still.
// As neither runs beside the other, no record needs its quarantine: time flies, and records are reused at once.
type frozen struct {
	*stress
	round       uint64
	ended, kept int             // witnesses, after a sweep
	looks       [ending + 1]int // by phase
}

// TestFrozenWriter: at every moment a session has both its directions or the inbound one alone, is never without while it
// moves to another uplink, and outlives a sweep when a packet refreshed it before it was hidden.
//
// With each of these changes of nat it fails in 20 of 20 runs within 0.3 s (with the race detector: 5 of 5, 1.2 s):
//   - publish fills the outbound slot before the inbound one;
//   - Open publishes the slots before it writes the record's words;
//   - Open hides the old session before it publishes the one that takes its place;
//   - hide clears the inbound slot before the outbound one;
//   - conclude does not read last-seen again;
//   - retire takes the last-seen that conclude compares with after it has judged the session idle.
func TestFrozenWriter(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		w := &frozen{stress: newStress(t, f, 8), round: 1}
		cpu, _ := cpus(t)
		w.thread(cpu, w.write)
		w.thread(cpu, w.read)
		w.wait(t, 3*time.Second)
		t.Logf("%d rounds: %d witnesses ended, %d kept; looks by phase: %d", w.round, w.ended, w.kept, w.looks)
		if w.ended == 0 || w.kept == 0 || w.looks[opening] == 0 || w.looks[present] == 0 || w.looks[ending] == 0 {
			t.Error("the reader never met the writer at work")
		}
	})
}

// write is a round: all witnesses are opened, moved to the other uplink, and swept as long idle.
func (f *frozen) write() {
	now := f.clock()
	for i, w := range f.witnesses {
		f.at.Store(uint32(i))
		for uplink, phase := range []uint64{opening, present} {
			f.enter(w, phase)
			if err := f.open(w, uplink, now-nat.TickOf(long)); err != nil {
				f.fail("open a session: %v", err)
			}
		}
	}
	for _, w := range f.witnesses {
		f.enter(w, ending)
	}
	f.at.Store(everyone)
	f.table.Sweep(now, 0)
	f.at.Store(0)
	f.judge()
	for i := range nat.Tick(3) { // end what was kept, wait for two sweeps, free everything
		f.table.Sweep(now+(i+1)*nat.TickOf(long), 0)
	}
	f.round++
}

func (f *frozen) enter(w *witness, phase uint64) { w.phase.Store(f.round<<2 | phase) }

// judge looks at what a sweep has left. A witness that a packet met before its end must be there.
func (f *frozen) judge() {
	for _, w := range f.witnesses {
		f.enter(w, gone)
		switch {
		case f.table.FindOut(w.key()) != 0:
			f.kept++
		case w.hit.Load() == f.round:
			f.fail("the session of %+v was ended although a packet had just refreshed it", w.key())
		default:
			f.ended++
		}
	}
}

// read stops the writer by waking up, and looks at what it is working on.
func (f *frozen) read() {
	nap(5, 50)
	at := f.at.Load()
	for i, w := range f.witnesses {
		if at == everyone || at == uint32(i) {
			f.look(w)
		}
	}
}

// look sends a packet and its reply. Unless this thread left its CPU meanwhile, both saw the table at the same moment.
func (f *frozen) look(w *witness) {
	before := f.switches()
	phase := w.phase.Load()
	end, out := f.out(w)
	in := out && f.in(w, end)
	if f.switches() != before {
		return
	}
	f.looks[phase&3]++
	switch {
	case out && !in:
		f.fail("a packet of %+v is a hit, its reply is none, while the session is %s", w.key(), phaseNames[phase&3])
	case !out && phase&3 == present:
		f.fail("a packet of %+v is no hit while the session is %s", w.key(), phaseNames[phase&3])
	case out && phase&3 == ending:
		w.hit.Store(phase >> 2)
	}
}

// switches is how often the thread has left its CPU.
func (f *frozen) switches() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		f.fail("count context switches: %v", err)
	}
	return u.Nvcsw + u.Nivcsw
}

// TestQuarantine moves sessions between two uplinks as fast as the records last, while programs on another CPU, slow ones,
// use the records just given up.
//
// It fails in 20 of 20 runs within 0.2 s (with the race detector: 10 of 10, 1.2 s) when reclaim frees records at once, and
// when it waits for the two sweeps but not for quarantineTime. Programs that are not slowed down show the first too, but
// not in every run: their moment is 20 ns.
func TestQuarantine(t *testing.T) {
	eachOf(t, func(t *testing.T, f uplinks.Family) {
		s := newStress(t, f, 16)
		s.slow(t)
		writer, reader := cpus(t)
		moves := 0
		s.thread(writer, func() {
			s.move(moves/len(s.witnesses)%2, moves%len(s.witnesses))
			moves++
		})
		s.thread(reader, func() {
			w := s.witnesses[s.at.Load()]
			if end, hit := s.out(w); hit {
				s.in(w, end)
			}
		})
		s.wait(t, 4*time.Second)
		opened := s.table.Stats().Opened
		t.Logf("%d sessions in %d records", opened, sessions)
		if opened <= sessions {
			t.Error("no record was used again")
		}
	})
}

// move binds a witness to an uplink, once there is a record for that.
func (s *stress) move(uplink, i int) {
	now := s.clock()
	s.table.Sweep(now, 1)
	s.at.Store(uint32(i))
	err := s.open(s.witnesses[i], uplink, now)
	if errors.Is(err, nat.ErrTableFull) {
		nap(1000, 1001)
	} else if err != nil {
		s.fail("open a session: %v", err)
	}
}
