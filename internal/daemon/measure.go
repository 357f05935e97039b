package daemon

import (
	"context"
	"time"

	"tapgw/uplinks"
)

const (
	// sampleEvery is how often the interface counters are read.
	sampleEvery = 250 * time.Millisecond
	// carrierEvery is how often carriers are looked at, because the kernel tells of a lost one up to a second late
	// (linkwatch) when it told of another shortly before.
	carrierEvery = 100 * time.Millisecond
)

// measure feeds the load meters, and notices carriers, until ctx ends.
func (d *Daemon) measure(ctx context.Context) error {
	counters, carriers := time.NewTicker(sampleEvery), time.NewTicker(carrierEvery)
	defer counters.Stop()
	defer carriers.Stop()
	var known [uplinks.MaxUplinks]bool
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-counters.C:
			d.sample(d.snapshot.Load())
		case <-carriers.C:
			if d.carriersChanged(d.snapshot.Load(), &known) {
				d.lookAgain()
			}
		}
	}
}

// carriersChanged compares the carriers with what is known of them. A device that vanished is netlink's to tell.
func (d *Daemon) carriersChanged(s *uplinks.Snapshot, known *[uplinks.MaxUplinks]bool) (changed bool) {
	for _, u := range s.Uplinks {
		if u.Index == 0 {
			continue
		}
		if carrier, err := d.kernel.Carrier(u.Index); err == nil && carrier != known[u.ID] {
			known[u.ID], changed = carrier, true
		}
	}
	return changed
}

// lookAgain has the control loop read the facts anew.
func (d *Daemon) lookAgain() {
	select {
	case d.changed <- struct{}{}:
	default: // it is going to
	}
}

// sample reads the counters of every uplink that has a device; one that vanished meanwhile is skipped.
func (d *Daemon) sample(s *uplinks.Snapshot) {
	capacity := uplinks.EffectiveCapacity(s.Uplinks)
	for _, u := range s.Uplinks {
		if u.Index == 0 {
			continue
		}
		c, err := d.kernel.Counters(u.Index)
		if err != nil {
			continue
		}
		d.meters[u.ID].Sample(time.Now(), c, capacity[u.ID].Up, capacity[u.ID].Down, d.table.SessionsOn(u.ID))
	}
}
