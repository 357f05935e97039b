package daemon

import (
	"context"
	"time"

	"tapgw/uplinks"
)

// sampleEvery is how often the interface counters are read.
const sampleEvery = 250 * time.Millisecond

// measure feeds the load meters until ctx ends.
func (d *Daemon) measure(ctx context.Context) error {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.sample(d.snapshot.Load())
		}
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
