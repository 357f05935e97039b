package tray

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"tapgw/api"
	"tapgw/internal/human"
	"tapgw/internal/tray/icon"
)

// view is what people see of the daemon at one moment.
type view struct {
	links   []icon.Link
	tooltip string
	menu    []entry
}

// entry is a line of the menu; without a label it separates.
type entry struct {
	label    string
	links    []icon.Link // its picture, if any
	check    check
	act      action // the zero action does nothing, the entry only tells
	children []entry
}

// check is whether an entry is switched on, if it can be.
type check int

const (
	unchecked check = iota + 1
	checked
)

func checkIf(on bool) check {
	if on {
		return checked
	}
	return unchecked
}

// What the menu's lines and notes have at most, in characters.
const (
	lineWidth     = 80
	sentenceWidth = 300
)

// markup is what some panels and all notifications take for more than text.
var markup = strings.NewReplacer("<", "‹", ">", "›", "&", "+")

// plain makes text from outside one that no panel takes for anything else, on one line.
func plain(s string) string { return markup.Replace(human.Cut(human.Clean(s), lineWidth)) }

// sentence is plain for more text.
func sentence(s string) string { return markup.Replace(human.Cut(human.Clean(s), sentenceWidth)) }

func text(format string, args ...any) entry { return entry{label: fmt.Sprintf(format, args...)} }

var separator = entry{}

// running is the view of a daemon that answers.
func running(s api.Status, rights api.Access, now time.Time) view {
	menu := []entry{text("Internet: %s", verdict(s)), text("%s", traffic(s)), separator}
	v := view{tooltip: "Internet: " + verdict(s)}
	if len(s.Uplinks) == 0 {
		v.links, menu = []icon.Link{{Shape: icon.Cross}}, append(menu, text("No uplink found: connect a network"))
	}
	for _, u := range s.Uplinks {
		u = shown(u)
		v.links = append(v.links, link(u))
		v.tooltip += "\n" + brief(u)
		menu = append(menu, uplink(u, now))
	}
	menu = append(menu, gateway(s)...)
	if paused(s) {
		v.links = []icon.Link{{Shape: icon.Paused}}
	}
	if !rights.Change {
		forbid(menu)
		menu = append(menu, separator, text("Nothing can be changed by this account"), text("%s", plain(rights.Hint)))
	}
	v.menu = append(menu, separator, leave)
	return v
}

// stopped is the view while no daemon answers, for the reason err.
func stopped(err error) view {
	v := view{links: []icon.Link{{Shape: icon.Off}}, tooltip: "tapgw does not run"}
	v.menu = append(v.menu, text("tapgw does not run"))
	for clause := range strings.SplitSeq(err.Error(), "; ") {
		v.menu = append(v.menu, text("%s", plain(clause)))
	}
	v.menu = append(v.menu, separator, leave)
	return v
}

// leave ends the applet, which is no matter of the daemon.
var leave = entry{label: "Quit", act: action{verb: quit}}

// forbid takes the changes out of the menu; what only looks stays.
func forbid(menu []entry) {
	for i := range menu {
		if menu[i].act.changes() {
			menu[i].act = action{}
		}
		forbid(menu[i].children)
	}
}

func verdict(s api.Status) string {
	usable := 0
	for i := range s.Uplinks {
		if s.Uplinks[i].Usable() {
			usable++
		}
	}
	word := "online"
	switch {
	case paused(s):
		return "not balanced until " + s.PausedUntil.Local().Format(time.TimeOnly)
	case usable == 0:
		word = "offline"
	case usable < len(s.Uplinks):
		word = "partial"
	}
	return fmt.Sprintf("%s (%d of %d uplinks usable)", word, usable, len(s.Uplinks))
}

func traffic(s api.Status) string {
	var down, up float64
	for _, u := range s.Uplinks {
		down, up = down+u.RxBps, up+u.TxBps
	}
	return fmt.Sprintf("%s sessions   ↓ %s   ↑ %s", human.Count(s.Sessions), human.Rate(down), human.Rate(up))
}

// shown is an uplink whose state is that of IPv6 where that is all it has.
func shown(u api.Uplink) api.Uplink {
	if u.IPv6Only() {
		u.State, u.Since, u.RTTMs, u.Reason = u.IPv6.State, u.IPv6.Since, u.IPv6.RTTMs, "IPv6 only: "+cmp.Or(u.Reason, "no IPv4")
	}
	return u
}

var shapes = map[string]icon.Shape{
	api.StateUp: icon.Bar, api.StateDegraded: icon.Ladder, api.StateDown: icon.Cross, api.StatePortal: icon.Mark,
	api.StateProbing: icon.Dots, api.StateDisabled: icon.Dash,
}

func link(u api.Uplink) icon.Link {
	shape, known := shapes[u.State]
	switch {
	case !known:
		shape = icon.Dots
	case u.Suspect && shape == icon.Bar:
		shape = icon.Ladder
	}
	l := icon.Link{Shape: shape}
	if u.Usable() {
		l.Load = icon.Steps(u.Load)
	}
	return l
}

// brief is an uplink on one line.
func brief(u api.Uplink) string {
	name := plain(u.Name)
	if !u.Usable() {
		return fmt.Sprintf("%s   %s", name, plain(u.State))
	}
	if u.State != api.StateUp {
		name += " (" + plain(u.State) + ")"
	}
	return fmt.Sprintf("%s   ↓ %s   ↑ %s   %s", name, human.Rate(u.RxBps), human.Rate(u.TxBps), human.RTT(u.RTTMs))
}

// uplink is the entry of one, with what can be done to it below.
func uplink(u api.Uplink, now time.Time) entry {
	e := entry{label: brief(u), links: []icon.Link{link(u)}}
	e.children = append(details(u, now), separator)
	e.children = append(e.children, switches(u)...)
	return e
}

// details are the lines that only tell.
func details(u api.Uplink, now time.Time) []entry {
	list := []entry{text("%s for %s, %s sessions, load %s",
		plain(u.State), human.Since(now, u.Since), human.Count(u.Sessions), human.Percent(u.Load))}
	if u.Reason != "" {
		list = append(list, text("%s", plain(u.Reason)))
	}
	if v := u.IPv6; v.State != "" && v.State != api.StateUp {
		list = append(list, text("IPv6: %s", plain(v.State+" "+v.Reason)))
	}
	if u.Usage.CapBytes > 0 {
		list = append(list, text("%s of %s used", human.Amount(u.Usage.UsedBytes), human.Amount(u.Usage.CapBytes)))
	}
	return list
}

// switches are what can be done to one uplink.
func switches(u api.Uplink) []entry {
	on := u.State != api.StateDisabled
	list := []entry{
		{label: "Use for new sessions", check: checkIf(on), act: action{verb: enable, uplink: u.Name, on: !on}},
		{label: "Prefer to the others", check: checkIf(u.Preferred), act: action{verb: prefer, uplink: u.Name, on: !u.Preferred}},
		{label: "Metered", check: checkIf(u.Metered), act: action{verb: meter, uplink: u.Name, on: !u.Metered}},
	}
	if u.State == api.StatePortal || u.IPv6.State == api.StatePortal {
		list = append(list, entry{label: "Sign in…", act: action{verb: signIn, uplink: u.Name}})
	}
	return list
}

// gateway is what can be done to all uplinks.
func gateway(s api.Status) []entry {
	wait := entry{label: fmt.Sprintf("Pause for %.0f minutes", api.DefaultPause.Minutes()), act: action{verb: pause, on: true}}
	if paused(s) {
		wait = entry{label: "Resume", act: action{verb: pause}}
	}
	return []entry{separator, wait, {label: "Open dashboard", act: action{verb: dashboard}}}
}

func paused(s api.Status) bool { return !s.PausedUntil.IsZero() }
