package daemon

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"tapgw/api"
	"tapgw/configs"
	"tapgw/uplinks"
	"tapgw/uplinks/usage"
)

// What commands change lasts until the daemon ends. These functions run in the control loop.

// unknown explains an error of the tracker.
func (d *Daemon) unknown(name string, err error) error {
	if errors.Is(err, uplinks.ErrUnknown) {
		return fmt.Errorf("%w: %q", api.ErrUnknownUplink, name)
	}
	return err
}

// tell has a command in the events.
func (d *Daemon) tell(kind, uplink, message string) {
	d.journal.Publish(api.Event{Time: time.Now(), Kind: kind, Uplink: uplink, Message: message})
}

// prefer has new sessions use an uplink while it is up, none for "".
func (d *Daemon) prefer(name string) error {
	if err := d.tracker.Prefer(name); err != nil {
		return d.unknown(name, err)
	}
	message := "new sessions use it while it is up"
	if name == "" {
		message = "no uplink is preferred any more"
	}
	d.tell(api.EventPrefer, name, message)
	return nil
}

// setMetered says whether the data of an uplink cost money.
func (d *Daemon) setMetered(name string, m api.Metered) error {
	set := d.tracker.UnsetMetered
	if m != api.MeteredAuto {
		set = func(name string) error { return d.tracker.SetMetered(name, m == api.MeteredOn) }
	}
	if err := set(name); err != nil {
		return d.unknown(name, err)
	}
	d.followUsage(time.Now())
	d.tell(api.EventMetered, name, string(m))
	return nil
}

// caps are the plans of uplinks that are metered.
func (d *Daemon) caps(c *configs.Config) map[string]usage.Plan {
	all := plans(c)
	maps.DeleteFunc(all, func(name string, _ usage.Plan) bool { return d.tracker.Unmetered(name) })
	return all
}

// pause leaves traffic to the host's own routes for so long.
func (d *Daemon) pause(length time.Duration) error {
	until := time.Now().Add(length)
	d.paused.Store(&until)
	time.AfterFunc(length, d.lookAgain)
	d.tell(api.EventPause, "", "traffic leaves by the host's own routes until "+until.Format(time.TimeOnly))
	return nil
}

// resume ends a pause.
func (d *Daemon) resume() error {
	if d.paused.Swap(nil) != nil {
		d.log.Info("traffic is captured again")
		d.tell(api.EventResume, "", "traffic is captured again")
	}
	return nil
}

// endPause resumes when it is time.
func (d *Daemon) endPause(now time.Time) {
	if until := d.paused.Load(); until != nil && isOver(*until, now) {
		_ = d.resume() // never fails
	}
}

// isOver reports whether a time has come, by the clock that sleeps with the machine or by the one that does not.
func isOver(until, now time.Time) bool {
	return !now.Before(until) || !now.Round(0).Before(until.Round(0))
}

func (d *Daemon) isPaused() bool { return d.paused.Load() != nil }

// Prefer answers POST /v1/prefer.
func (b backend) Prefer(name string) error {
	return b.ask(func() error { return b.prefer(name) })
}

// SetMetered answers POST /v1/uplinks/NAME/metered.
func (b backend) SetMetered(name string, m api.Metered) error {
	return b.ask(func() error { return b.setMetered(name, m) })
}

// Pause answers POST /v1/pause.
func (b backend) Pause(length time.Duration) error {
	return b.ask(func() error { return b.pause(length) })
}

// Resume answers POST /v1/resume.
func (b backend) Resume() error { return b.ask(b.resume) }

// Pin answers POST /v1/uplinks/NAME/pin.
func (b backend) Pin(name string, pid int) error {
	return b.ask(func() error { return b.pin(name, pid) })
}
