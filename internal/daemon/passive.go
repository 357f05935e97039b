package daemon

import (
	"context"
	"fmt"
	"time"

	"tapgw/api"
	"tapgw/tapgw"
	"tapgw/uplinks"
)

// overdueEvery is how often first packets that wait for an answer are looked at. Nothing runs while none does.
const overdueEvery = 25 * time.Millisecond

// noise is how many bytes an uplink may receive between two looks for that to mean nothing: neighbour discovery and the like, which
// the provider's own device answers.
const noise = 256

// suspicion is that something is wrong with an uplink, which its probes had better find out at once.
type suspicion struct {
	uplink   uint8
	families []uplinks.Family
	message  string // for people
	quiet    bool   // not worth an event
}

// suspected passes a suspicion to the control loop. One that finds no room is not needed: others wait there.
func (d *Daemon) suspected(s suspicion) {
	select {
	case d.suspicions <- s:
	default:
	}
}

// takeSuspicion has an uplink probed at once.
func (d *Daemon) takeSuspicion(s suspicion) {
	u := d.snapshot.Load().ByID(s.uplink)
	if u == nil {
		return
	}
	for _, f := range s.families {
		d.prober.kick(f, func(uplink uint8) bool { return uplink == s.uplink })
	}
	if s.quiet {
		d.log.Debug("uplink", "name", u.Name, "suspicion", s.message)
		return
	}
	d.journal.suspicion(u.Name, s.families[0], s.message, time.Now())
}

// suspicion reports that remotes do not answer by an uplink.
func (j *journal) suspicion(uplink string, f uplinks.Family, message string, at time.Time) {
	j.log.Info("uplink", "name", uplink, "family", familyName(f), "event", api.EventSuspicion, "reason", message)
	j.Publish(api.Event{Time: at, Kind: api.EventSuspicion, Uplink: uplink, Family: familyName(f), Message: message})
}

// hearing is the last reading of what an uplink has received.
type hearing struct {
	index int
	rx    uint64
	at    time.Duration
}

// answers looks after first packets that wait for one.
type answers struct {
	*Daemon
	worker  worker
	outlook tapgw.Outlook
	heard   [uplinks.MaxUplinks]hearing
}

// watchAnswers runs while first packets wait for an answer, until ctx ends.
func (d *Daemon) watchAnswers(ctx context.Context) error {
	a := &answers{Daemon: d, worker: worker{pumps: d.pumps}}
	a.outlook.Send = func(uplink uint8, frame []byte) {
		a.worker.send(uplink, frame)
		a.worker.flush()
	}
	a.outlook.Suspect = func(s tapgw.Suspicion) { d.suspected(d.describe(s)) }
	a.outlook.Doubt = func(uplink uint8) {
		d.suspected(suspicion{uplink, uplinks.Families[:], "nothing comes back by " + nameOf(d.snapshot.Load(), uplink), true})
	}
	pace := time.NewTimer(0)
	defer pace.Stop()
	for waiting := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-d.waiting:
		case <-pace.C:
		}
		if !waiting {
			a.stir()
			a.listen() // from here on we know what is received
		}
		if waiting = a.look(); waiting {
			pace.Reset(overdueEvery)
		}
	}
}

// look has the gateway do what is to be done, and reports whether it is to be looked again.
func (a *answers) look() bool {
	a.listen()
	return a.gateway.Overdue(a.pumps.clock.tick(), &a.outlook)
}

// listen notes since when each uplink has received something: since the reading before the one that showed it.
func (a *answers) listen() {
	now := a.pumps.clock.fine()
	for _, u := range a.snapshot.Load().Uplinks {
		if u.Index == 0 {
			continue
		}
		r, err := a.kernel.Measure(u.Index)
		if err != nil {
			continue
		}
		h := &a.heard[u.ID]
		if h.index == u.Index && r.RxBytes-h.rx > noise {
			a.outlook.Heard[u.ID] = h.at
		}
		*h = hearing{u.Index, r.RxBytes, now}
	}
}

// describe says what was seen.
func (d *Daemon) describe(s tapgw.Suspicion) suspicion {
	f := uplinks.IPv4
	if s.IPv6 {
		f = uplinks.IPv6
	}
	snapshot := d.snapshot.Load()
	message := fmt.Sprintf("no answers to %d new sessions by %s", s.Unanswered, nameOf(snapshot, s.Uplink))
	if s.Answering != tapgw.NoAnswering {
		message += " while " + nameOf(snapshot, s.Answering) + " answers"
	}
	return suspicion{uplink: s.Uplink, families: []uplinks.Family{f}, message: message}
}

func nameOf(s *uplinks.Snapshot, id uint8) string {
	if u := s.ByID(id); u != nil {
		return u.Name
	}
	return "an uplink that is gone"
}

// listenTo tells when an uplink that carried traffic receives nothing any more.
func (d *Daemon) listenTo(u *uplinks.Uplink, m *measuring, total uplinks.Counters) {
	if m.silences[u.ID].Observe(time.Now(), total) {
		d.suspected(suspicion{u.ID, uplinks.Families[:], u.Name + " receives nothing any more", true})
	}
}
