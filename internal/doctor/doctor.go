// Package doctor looks at a host, with or without a running gateway, and says what keeps the gateway from working well and what
// helps. It changes nothing.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tapgw/api"
	"tapgw/internal/hostconf"
	"tapgw/uplinks"
)

// Level is how bad a finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Unknown Level = "unknown" // it could not be looked at
	Warn    Level = "warn"    // something works less well than it could
	Fail    Level = "fail"    // something does not work
)

// Finding is what one check found.
type Finding struct {
	Check   string `json:"check"` // its name
	Level   Level  `json:"level"`
	Message string `json:"message"` // a clause
	Advice  string `json:"advice"`  // what to do, "" for nothing
}

// Options say what to look at.
type Options struct {
	Client  *api.Client
	Facts   uplinks.Facts
	TAP     string   // name of the device
	Uplinks []string // interfaces that the configuration names, none for those that are found
	Root    string   // of files that programs install, "/" but in tests
	Desktop string   // that the user works with, as in XDG_CURRENT_DESKTOP
}

// host is what the checks look at.
type host struct {
	Options
	ctx    context.Context
	tap    uplinks.Link // Index 0 where there is none
	list   []*uplinks.Uplink
	lan    []string   // interfaces
	status api.Status // while running
	absent error      // why nothing is known of a daemon, nil while running
}

// checks in the order of what is told: what tapgw needs, the network it finds, others on this host, how it does.
var checks = []struct {
	name string
	look func(*host) Finding
}{
	{"tun", tun}, {"privileges", privileges}, {"datapath", datapath}, {"conntrack", conntrack}, {"clock", clock},
	{"uplinks", found}, {"default-route", defaultRoute}, {"subnets", subnets}, {"gateways", gateways}, {"overlaps", overlaps},
	{"rules", rules}, {"rp_filter", reversePath}, {"forwarding", forwarding}, {"accept_ra", acceptRA}, {"mtu", mtu}, {"offloads", offloads},
	{"firewall", firewall},
	{"networkmanager", networkManager}, {"connectivity", connectivity}, {"networkd", networkd}, {"mwan3", mwan3}, {"desktop", desktop},
	{"daemon", daemon}, {"access", access}, {"health", health}, {"portal", portal}, {"dns", names},
}

// Examine looks at the network namespace of the calling thread.
func Examine(ctx context.Context, o Options) []Finding {
	h := newHost(ctx, o)
	list := make([]Finding, 0, len(checks))
	for _, c := range checks {
		f := c.look(h)
		f.Check = c.name
		list = append(list, f)
	}
	return list
}

// Worst is the level of all findings together. What could not be looked at is no fault.
func Worst(list []Finding) Level {
	worst := OK
	for _, f := range list {
		if f.Level == Fail || f.Level == Warn && worst == OK {
			worst = f.Level
		}
	}
	return worst
}

func newHost(ctx context.Context, o Options) *host {
	h := &host{Options: o, ctx: ctx}
	h.status, h.absent = o.Client.Status(ctx)
	h.tap, _ = h.link(o.TAP)
	h.list = h.track(h.interfaces())
	var interfaces []string
	for _, u := range h.list {
		interfaces = append(interfaces, u.Interface)
	}
	w := hostconf.Wanted{TAP: o.TAP, Upcall: o.TAP + "u", Uplinks: interfaces, Facts: o.Facts}
	h.lan = hostconf.LANInterfaces(w, nil)
	return h
}

// interfaces are those of the running daemon's uplinks, else of the configuration's; none for all that are found.
func (h *host) interfaces() (list []string) {
	if !h.running() {
		return h.Uplinks
	}
	for _, u := range h.status.Uplinks {
		list = append(list, u.Interface)
	}
	return list
}

// track finds the uplinks as the daemon does.
func (h *host) track(interfaces []string) []*uplinks.Uplink {
	config := uplinks.TrackerConfig{TapName: h.TAP}
	for _, name := range interfaces {
		config.Specs = append(config.Specs, uplinks.Spec{Interface: name, Weight: 1})
	}
	snapshot, _ := uplinks.NewTracker(config).Update(time.Now(), h.Facts)
	return slices.DeleteFunc(slices.Clone(snapshot.Uplinks), func(u *uplinks.Uplink) bool { return u.Index == 0 })
}

func (h *host) running() bool { return h.absent == nil }

func (h *host) link(name string) (uplinks.Link, bool) {
	return h.linkThat(func(l uplinks.Link) bool { return l.Name == name })
}

func (h *host) linkThat(fits func(uplinks.Link) bool) (uplinks.Link, bool) {
	if i := slices.IndexFunc(h.Facts.Links, fits); i >= 0 {
		return h.Facts.Links[i], true
	}
	return uplinks.Link{}, false
}

// device is the name of an interface.
func (h *host) device(index int) string {
	l, _ := h.linkThat(func(l uplinks.Link) bool { return l.Index == index })
	return cmp.Or(l.Name, fmt.Sprint("device ", index))
}

// uplinksThat are the interfaces of the uplinks that fit.
func (h *host) uplinksThat(fit func(*uplinks.Uplink) bool) (interfaces []string) {
	for _, u := range h.list {
		if fit(u) {
			interfaces = append(interfaces, u.Interface)
		}
	}
	return interfaces
}

func ok(format string, args ...any) Finding {
	return Finding{Level: OK, Message: fmt.Sprintf(format, args...)}
}

func unknown(advice, format string, args ...any) Finding {
	return Finding{Level: Unknown, Message: fmt.Sprintf(format, args...), Advice: advice}
}

func warn(advice, format string, args ...any) Finding {
	return Finding{Level: Warn, Message: fmt.Sprintf(format, args...), Advice: advice}
}

func fail(advice, format string, args ...any) Finding {
	return Finding{Level: Fail, Message: fmt.Sprintf(format, args...), Advice: advice}
}

// useRoot is the advice where only root may look.
const useRoot = "sudo tapgw doctor"

// words joins names.
func words(list []string) string { return strings.Join(list, ", ") }
