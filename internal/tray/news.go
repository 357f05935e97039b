package tray

import (
	"slices"
	"strings"
	"time"

	"tapgw/api"
)

// note is something that the desktop is to show for a while.
type note struct {
	topic         string // a note takes the place of the one before with the same topic
	summary, body string
	urgent        bool
}

// quiet is how often something is said of an uplink, after a failure and its end, so that one that comes and goes is no nuisance.
const quiet = 30 * time.Second

// news finds what is worth a note: an uplink fails, or is back.
type news struct {
	told  map[string]saying // by uplink
	begun bool
}

// saying is what was said of an uplink last.
type saying struct {
	works bool
	next  time.Time // when more may be said
}

// of returns what is new in s.
func (n *news) of(s api.Status, now time.Time) (notes []note) {
	if !n.begun && len(s.Uplinks) == 0 { // a daemon that has just started
		return nil
	}
	if !n.begun {
		n.begin(s)
	}
	for _, u := range s.Uplinks {
		if works, known := works(&u); known && n.tells(u.Name, works, now) {
			notes = append(notes, change(s, u, works))
		}
	}
	return append(notes, n.gone(s, now)...)
}

// begin is what nobody needs to be told of.
func (n *news) begin(s api.Status) {
	n.told, n.begun = make(map[string]saying), true
	for _, u := range s.Uplinks {
		works, known := works(&u)
		n.told[u.Name] = saying{works: works || !known}
	}
}

// forget is for when the daemon is gone: what another one finds is no news.
func (n *news) forget() { n.begun = false }

// works reports whether an uplink does; that is not known while it is probed or switched off.
func works(u *api.Uplink) (works, known bool) {
	return u.Usable(), u.Usable() || u.State == api.StateDown || u.State == api.StatePortal
}

// tells reports whether something is to be said, and takes it for said.
func (n *news) tells(uplink string, works bool, now time.Time) bool {
	last := n.told[uplink]
	if last.works == works || now.Before(last.next) {
		return false
	}
	next := now // soon after a long time, late after a short one
	if now.Before(last.next.Add(quiet)) {
		next = last.next.Add(quiet)
	}
	n.told[uplink] = saying{works, next}
	return true
}

// gone is about uplinks that are not there any more.
func (n *news) gone(s api.Status, now time.Time) (notes []note) {
	for name, last := range n.told {
		there := slices.ContainsFunc(s.Uplinks, func(u api.Uplink) bool { return u.Name == name })
		if there || now.Before(last.next) {
			continue
		}
		if delete(n.told, name); last.works {
			notes = append(notes, note{topic: name, summary: plain(name) + " is gone", body: instead(s), urgent: !online(s)})
		}
	}
	return notes
}

// change is the note about an uplink that works now, or does not.
func change(s api.Status, u api.Uplink, works bool) note {
	n := note{topic: u.Name, summary: plain(u.Name) + " is down", body: instead(s), urgent: !online(s)}
	switch {
	case works:
		n.summary, n.body = plain(u.Name)+" is up", "New sessions use it."
	case u.State == api.StatePortal:
		n.summary = plain(u.Name) + " wants you to sign in"
	case u.Reason != "":
		n.body += "\n" + sentence(u.Reason)
	}
	return n
}

func online(s api.Status) bool { return instead(s) != offline }

const offline = "No other uplink works: you are offline."

// instead says which uplinks new sessions use.
func instead(s api.Status) string {
	var names []string
	for _, u := range s.Uplinks {
		if u.Usable() {
			names = append(names, plain(u.Name))
		}
	}
	if len(names) == 0 {
		return offline
	}
	return "New sessions go by " + strings.Join(names, ", ") + "."
}
