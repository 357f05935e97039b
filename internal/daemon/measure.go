package daemon

import (
	"context"
	"time"

	"tapgw/uplinks"
)

const (
	// lookEvery is how often the uplinks' devices are looked at, for their carriers: the kernel tells of a lost one up to a
	// second late (linkwatch) when it told of another shortly before.
	lookEvery = 125 * time.Millisecond
	// sampleEvery so many looks one is a sample of the load.
	sampleEvery = 2
)

// measure feeds the load meters, notices carriers and has the control loop check, until ctx ends. One timer serves all.
func (d *Daemon) measure(ctx context.Context) error {
	look, err := newBeat(lookEvery)
	if err != nil {
		return err
	}
	defer look.stop()
	defer context.AfterFunc(ctx, look.stop)()
	var known [uplinks.MaxUplinks]bool
	for looks := 1; look.wait(); looks++ {
		if d.look(d.snapshot.Load(), &known, looks%sampleEvery == 0) {
			d.lookAgain()
		}
		if looks%int(checkEvery/lookEvery) == 0 {
			poke(d.checkDue)
		}
	}
	return nil
}

// look reads every uplink's device, and reports whether a carrier is not as known. A device that vanished is netlink's to
// tell.
func (d *Daemon) look(s *uplinks.Snapshot, known *[uplinks.MaxUplinks]bool, sample bool) (changed bool) {
	var capacity map[uint8]uplinks.Capacity
	if sample {
		capacity = uplinks.EffectiveCapacity(s.Uplinks)
	}
	for _, u := range s.Uplinks {
		if u.Index == 0 {
			continue
		}
		r, err := d.kernel.Measure(u.Index)
		if err != nil {
			continue
		}
		if r.Carrier != known[u.ID] {
			known[u.ID], changed = r.Carrier, true
		}
		if sample {
			c := capacity[u.ID]
			d.meters[u.ID].Sample(time.Now(), r.Counters, c.Up, c.Down, d.tables.on(u.ID))
		}
	}
	return changed
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
