package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tapgw/api"
	"tapgw/configs"
	"tapgw/internal/hostconf"
	"tapgw/uplinks"
	"tapgw/uplinks/usage"
)

const (
	// usageEvery is how often what metered uplinks used is written down. A crash loses nothing, as the counters of their devices go
	// on; when the power fails it is what was used since.
	usageEvery = time.Minute
	// usageFreeEvery is the same where no uplink is metered, for the sake of disks that would sleep.
	usageFreeEvery = time.Hour
	bootPath       = "/proc/sys/kernel/random/boot_id"
)

// dataUse counts what the uplinks' devices carry, and keeps it in a file. The ledger is shared, the rest is the task's that keeps it.
type dataUse struct {
	*usage.Ledger
	log     *slog.Logger
	file    stateFile
	boot    string
	due     chan struct{} // to be written at once
	written []byte
}

func newDataUse(log *slog.Logger) *dataUse {
	return &dataUse{
		Ledger: usage.New(), log: log, due: make(chan struct{}, 1),
		file: stateFile{tell: func(err error) {
			log.Warn("what the uplinks use is not written down, and forgotten at the next boot", "error", err)
		}},
	}
}

// open reads what was used before. Whatever is wrong with the file, the gateway runs, and counts from nothing.
func (u *dataUse) open(path string) {
	u.file.path = path
	boot, err := os.ReadFile(bootPath)
	if err != nil {
		u.log.Warn("data used while the daemon does not run may be counted twice", "error", err)
	}
	u.boot = strings.TrimSpace(string(boot))
	data, err := u.file.read(u.log)
	if data == nil && err == nil {
		return
	}
	var before *usage.Ledger
	if err == nil {
		before, err = usage.Parse(data)
	}
	if err != nil {
		u.log.Warn("what the uplinks used before is not known, correct it with `tapgw usage UPLINK --set`", "file", path, "error", err)
		return
	}
	u.Ledger = before
}

// usagePath is where the file is.
func usagePath(socket string) string {
	return filepath.Join(hostconf.StateDir(os.Getenv("STATE_DIRECTORY"), socket), "usage.json")
}

// plans are what the configuration says of the uplinks' data.
func plans(c *configs.Config) map[string]usage.Plan {
	all := make(map[string]usage.Plan)
	for _, u := range c.Uplinks {
		if m := u.Metered; m.Enabled {
			all[u.Name] = usage.Plan{Cap: m.Cap, BillingDay: m.BillingDay, Warn: int(m.Warn), Stop: int(m.Stop)}
		}
	}
	return all
}

// sampled is a reading of an uplink's device, as the ledger takes it.
func (u *dataUse) sampled(of *uplinks.Uplink, total uplinks.Counters) usage.Sample {
	return usage.Sample{Name: of.Name, Device: usage.Device{Boot: u.boot, Index: of.Index}, Counters: total}
}

// count takes readings of all uplinks' devices.
func (u *dataUse) count(samples []usage.Sample) {
	if u.Count(time.Now(), samples) {
		poke(u.due)
	}
}

// keep writes the file now and then, and at the end.
func (u *dataUse) keep(ctx context.Context, metered func() bool) error {
	ticks := time.NewTicker(usageEvery)
	defer ticks.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			u.write()
			return nil
		case <-u.due:
		case <-ticks.C:
			if !metered() && time.Since(last) < usageFreeEvery {
				continue
			}
		}
		u.write()
		last = time.Now()
	}
}

// write replaces the file if there is something new.
func (u *dataUse) write() {
	if data := u.Render(); !bytes.Equal(data, u.written) && u.file.write(data) {
		u.written = data
	}
}

// openUsage reads what was used before, and adds what was used since, so that a reached cap counts from the first session on.
func (d *Daemon) openUsage(s *uplinks.Snapshot) {
	d.used.open(usagePath(d.socket()))
	d.used.SetPlans(plans(d.cfg()))
	var samples []usage.Sample
	for _, u := range s.Uplinks {
		if r, err := d.kernel.Measure(u.Index); u.Index != 0 && err == nil {
			samples = append(samples, d.used.sampled(u, r.Counters))
		}
	}
	d.used.count(samples)
}

// usageOf is an uplink's use of data in the words of the API.
func (d *Daemon) usageOf(u *uplinks.Uplink) api.Usage {
	now := d.used.Of(time.Now(), u.Name)
	return api.Usage{UsedBytes: now.Used, CapBytes: now.Cap, ResetsAt: now.Ends, State: string(now.Level)}
}

// followUsage has uplinks whose cap is reached take no new sessions, and tells of those that are near it. It reports whether the
// tracker has something to tell.
func (d *Daemon) followUsage(now time.Time) (changed bool) {
	stopped := make(map[string]string)
	for name, plan := range d.caps(d.cfg()) {
		u := d.used.Of(now, name)
		if u.Level == usage.Stopped {
			stopped[name] = "data cap: " + u.Text(plan.Stop)
		}
		if d.used.Warn(now, name) {
			d.log.Warn("data cap", "uplink", name, "used", u.Used, "cap", u.Cap, "until", u.Ends)
			d.journal.Publish(api.Event{Time: now, Kind: api.EventUsage, Uplink: name, Message: u.Text(plan.Warn)})
		}
	}
	return d.tracker.SetStopped(stopped)
}

// setUsage says what an uplink has used, as its ISP counts. It runs in the control loop.
func (d *Daemon) setUsage(name string, used uint64) error {
	if err := d.used.Set(time.Now(), name, used); err != nil {
		return fmt.Errorf("%w: %q", api.ErrUnknownUplink, name)
	}
	d.followUsage(time.Now())
	poke(d.used.due)
	return nil
}

// allowUsage has an uplink used in spite of its cap until the period ends, as the user switched it on. It runs in the control loop.
func (d *Daemon) allowUsage(name string) {
	if d.used.Of(time.Now(), name).Level == usage.Stopped && d.used.Allow(time.Now(), name) == nil {
		d.followUsage(time.Now())
		poke(d.used.due)
	}
}
