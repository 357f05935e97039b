package daemon

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"tapgw/uplinks"
)

const (
	// statusEvery is how often the service manager is told how many sessions there are.
	statusEvery = 10 * time.Second
	// watchdogShare of the time that the service manager waits for a sign of life there is one.
	watchdogShare = 3
)

// manager is what the control loop has told the service manager, by sd_notify(3).
type manager struct {
	watchdog time.Duration // a sign of life is awaited this often, 0 for never
	alive    time.Time     // the last one
	status   time.Time     // the last one
	usable   int           // uplinks, as of then
	known    int
}

// newManager finds out what the service manager wants to hear.
func newManager(log *slog.Logger) manager {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog of the service manager is not served", "error", err)
	}
	return manager{watchdog: every}
}

// notify tells the service manager something, if there is one. It is for the control loop.
func (d *Daemon) notify(states ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil && d.complaints.fresh(err.Error(), time.Now()) {
		d.log.Warn("the service manager was not told", "error", err)
	}
}

// notifyReady has the control loop tell that all works.
func (d *Daemon) notifyReady() {
	_ = d.ask(func() error { d.notify(daemon.SdNotifyReady); return nil }) // it fails when the daemon stops already
}

func (d *Daemon) notifyStopping() { d.notify(daemon.SdNotifyStopping) }

// notifyReloading tells that the configuration is being read, until the returned function tells that this is over.
func (d *Daemon) notifyReloading() (over func()) {
	d.notify(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	return func() { d.notify(daemon.SdNotifyReady) }
}

// attend tells the service manager that the control loop lives, and when something is new.
func (d *Daemon) attend(now time.Time) {
	m := &d.manager
	if m.watchdog > 0 && now.Sub(m.alive) >= m.watchdog/watchdogShare {
		m.alive = now
		d.notify(daemon.SdNotifyWatchdog)
	}
	usable, known := countUsable(d.snapshot.Load())
	if usable != m.usable || known != m.known || now.Sub(m.status) >= statusEvery {
		m.usable, m.known, m.status = usable, known, now
		d.notify("STATUS=" + summary(usable, known, d.tables.sessions()))
	}
}

// countUsable counts the uplinks by which new sessions can go, in any family.
func countUsable(s *uplinks.Snapshot) (usable, known int) {
	for _, u := range s.Uplinks {
		if u.State.Usable() || u.V6.State.Usable() {
			usable++
		}
	}
	return usable, len(s.Uplinks)
}

// summary is what `systemctl status` shows.
func summary(usable, known, sessions int) string {
	if known == 0 {
		return "Waiting for an uplink"
	}
	return fmt.Sprintf("%d of %d uplinks usable, %d sessions", usable, known, sessions)
}
