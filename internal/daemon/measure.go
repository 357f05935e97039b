package daemon

import (
	"context"
	"time"

	"tapgw/internal/history"
	"tapgw/probe"
	"tapgw/uplinks"
	"tapgw/uplinks/usage"
)

// measure feeds the load meters, notices carriers and has the control loop check, until ctx ends. One timer serves all.
func (d *Daemon) measure(ctx context.Context) error {
	p, err := newPace(d.rest)
	if err != nil {
		return err
	}
	d.pace.Store(p)
	defer p.stop()
	defer context.AfterFunc(ctx, p.stop)()
	var m measuring
	for ticks := 1; p.wait(); ticks++ {
		at := p.rhythm()
		if ticks%at.look == 0 && d.look(d.snapshot.Load(), &m, ticks%at.sample == 0) {
			d.lookAgain()
		}
		if ticks%at.remember == 0 {
			m.samples = d.remember(m.samples)
		}
		if ticks%at.check == 0 {
			poke(d.checkDue)
		}
	}
	return nil
}

// rest has the Go scheduler rest where the kernel carries known sessions; else readers may need theirs before the next look.
func (d *Daemon) rest(resting bool) {
	if d.fast != nil {
		d.processors.rest(resting)
	}
}

// measuring is what is remembered from look to look.
type measuring struct {
	carriers [uplinks.MaxUplinks]bool
	learners [uplinks.MaxUplinks]learner
	activity activity
	used     []usage.Sample
	samples  []history.Sample
	silences [uplinks.MaxUplinks]uplinks.Silence
	flows    [uplinks.MaxUplinks]flow
}

// flow is an uplink's last reading.
type flow struct {
	bytes uint64 // in both directions
	at    time.Time
}

// busy takes a reading, and reports whether since the last one the uplink has carried more than one does by which nobody does
// anything.
func (f *flow) busy(now time.Time, c uplinks.Counters) bool {
	last := *f
	*f = flow{c.RxBytes + c.TxBytes, now}
	return !last.at.IsZero() && f.bytes > last.bytes && float64(f.bytes-last.bytes)*8 > restBits*now.Sub(last.at).Seconds()
}

// look reads every uplink's device, and reports whether a carrier is not as known. A device that vanished is netlink's to
// tell.
func (d *Daemon) look(s *uplinks.Snapshot, m *measuring, sample bool) (changed bool) {
	if sample {
		m.assume(s)
		m.activity.read(&d.tables, m, time.Now(), d.pumps.clock.tick())
		m.used = m.used[:0]
	}
	for _, u := range s.Uplinks {
		if u.Index == 0 {
			continue
		}
		r, err := d.kernel.Measure(u.Index)
		if err != nil {
			continue
		}
		if r.Carrier != m.carriers[u.ID] {
			m.carriers[u.ID], changed = r.Carrier, true
		}
		if m.flows[u.ID].busy(time.Now(), r.Counters) {
			d.stir()
		}
		d.listenTo(u, m, r.Counters)
		if sample {
			d.sample(u, m, r.Counters)
			m.used = append(m.used, d.used.sampled(u, r.Counters))
		}
	}
	if sample {
		d.used.count(m.used)
	}
	return changed
}

// sample feeds an uplink's meter.
func (d *Daemon) sample(u *uplinks.Uplink, m *measuring, total uplinks.Counters) {
	now, meter := time.Now(), d.meters[u.ID]
	learner := m.learners[u.ID]
	learner.Observe(now, total, pathOf(u))
	meter.Sample(now, total, learner.Estimate(now), d.tables.on(u.ID))
	d.loads[u.ID].Store(&probe.Load{Returns: learner.Receives(), Full: learner.Full(now) || meter.Load() >= nearlyFull})
	if m.activity.fresh {
		meter.Contend(now, total, m.activity.of(u.ID))
	}
}

// nearlyFull is the load from which probes are lost and late because of what else the uplink carries.
const nearlyFull = 0.9

// load is what an uplink carries, as far as probes care.
func (d *Daemon) load(uplink uint8) probe.Load {
	if l := d.loads[uplink].Load(); l != nil {
		return *l
	}
	return probe.Load{}
}

// lookAgain has the control loop read the facts anew.
func (d *Daemon) lookAgain() { poke(d.changed) }

// poke sends to a channel of one element; what was not taken yet stands for the later ones too.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
