package nat

import (
	"testing"
	"time"
)

// A packet forwarded while its session is being deleted saves it.
func TestDeleteIsUndoneWhenTrafficMoved(t *testing.T) {
	for _, moved := range []bool{true, false} {
		table := newTable(t, nil)
		k, now := key(protoUDP, 1, web, 53), after(time.Hour)
		r := mustOpen(t, table, k, bind1, after(0))
		tr := table.Translation(r)
		s := table.hide(uint32(r))
		if table.FindOut(k) != 0 || table.FindIn(tr.InKey()) != 0 {
			t.Fatal("hidden sessions are found")
		}
		if moved {
			table.CountIn(r, now, 60, 1, datagram)
		}
		table.conclude(uint32(r), s, after(0), now)
		if out, in := table.FindOut(k), table.FindIn(tr.InKey()); moved != (out == r) || moved != (in == r) {
			t.Errorf("moved %v: found %d and %d", moved, out, in)
		}
	}
}

// A deleted record is not reused for a second and two further sweeps, whichever is later.
func TestQuarantine(t *testing.T) {
	for name, c := range map[string]struct {
		sweeps []time.Duration // after the deletion
		free   bool
	}{
		"at once":          {nil, false},
		"sweeps, no time":  {[]time.Duration{0, 0, 0, 0, 500 * time.Millisecond, time.Second}, false},
		"time, one sweep":  {[]time.Duration{time.Hour}, false},
		"time, two sweeps": {[]time.Duration{time.Hour, time.Hour}, true},
		"barely":           {[]time.Duration{0, 1200 * time.Millisecond}, true},
	} {
		t.Run(name, func(t *testing.T) {
			table := newTable(t, func(c *Config) { c.MaxSessions = 1 })
			k := key(protoUDP, 1, web, 53)
			r := mustOpen(t, table, k, bind1, after(0))
			end := DefaultTimeouts.UDP + time.Second
			sweepAt(table, end)
			if got := table.Translation(r); got.State != Ended || got.Key != k || table.Stats().Quarantined != 1 {
				t.Errorf("after deletion: %+v", got)
			}
			for _, d := range c.sweeps {
				sweepAt(table, end+d)
			}
			_, err := table.Open(k, bind2, after(end))
			if (err == nil) != c.free {
				t.Errorf("reused %v, want %v", err == nil, c.free)
			}
		})
	}
}

// Calls with a small budget reach every record, and each looks at no more than its budget.
func TestSweepInSlices(t *testing.T) {
	table := newTable(t, nil)
	for i := range 100 {
		mustOpen(t, table, key(protoUDP, uint16(i), web, 53), bind1, after(0))
	}
	end := after(DefaultTimeouts.UDP + time.Second)
	for i := range 10 {
		if got, want := table.Stats().Sessions, 100-10*i; got != want {
			t.Fatalf("after %d slices %d sessions, want %d", i, got, want)
		}
		table.Sweep(end, 10)
	}
	if got := table.Stats().Sessions; got != 0 {
		t.Errorf("%d sessions are left", got)
	}
}

// A packet counted with a later time than the sweep's is no idle session.
func TestSweepWithAnOlderClock(t *testing.T) {
	table := newTable(t, nil)
	k := key(protoUDP, 1, web, 53)
	mustOpen(t, table, k, bind1, after(time.Hour))
	if !alive(table, k, 0) {
		t.Error("a session of the future ended")
	}
}

func TestTicks(t *testing.T) {
	if got := TickOf(time.Second); got != 14 {
		t.Errorf("a second is %d ticks", got)
	}
	if got := ticks(time.Second); got != 15 {
		t.Errorf("a second is covered by %d ticks", got)
	}
	if got := Tick(1<<32 - 1).Since(14); got != 15<<26 {
		t.Errorf("across the wrap: %v", got)
	}
	if later(1<<32-1, 3) != 3 || later(3, 1<<32-1) != 3 {
		t.Error("the later tick is not the one after the wrap")
	}
}

// fill makes a table with n live UDP sessions of a few endpoints.
func fill(b *testing.B, n int) *Table {
	table := newTable(b, func(c *Config) { c.MaxSessions = n })
	for i := range n {
		mustOpen(b, table, nth(i), bind1, after(0))
	}
	return table
}

func nth(i int) Key { return key(protoUDP, uint16(i%1000), plus(web, i/1000), 53) }

func BenchmarkSweepMillion(b *testing.B) {
	table := fill(b, 1_000_000)
	for b.Loop() {
		table.Sweep(after(time.Second), 0)
	}
}

func BenchmarkForward(b *testing.B) {
	table := fill(b, 65536)
	i := 0
	for b.Loop() {
		r := table.FindOut(nth(i & 0xffff))
		_ = table.Translation(r)
		table.CountOut(r, after(time.Second), 60, 1, datagram)
		i += 7919
	}
}

// One session is opened, used and deleted.
func BenchmarkOpenClose(b *testing.B) {
	table := newTable(b, func(c *Config) { c.MaxSessions = 65536 })
	d := time.Duration(0)
	for i := 0; b.Loop(); i++ {
		if _, err := table.Open(nth(i), bind1, after(d)); err != nil {
			b.Fatal(err)
		}
		if i%10000 == 9999 {
			for range 4 {
				d += 10 * time.Minute
				table.Sweep(after(d), 0)
			}
		}
	}
}
