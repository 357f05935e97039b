package daemon

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tapgw/api"
	"tapgw/configs"
	"tapgw/policy"
	"tapgw/uplinks"
)

// hostPin has the new sessions of an inside host use one uplink while that is up.
type hostPin struct {
	api.Pin
	domain    string       // that Site is, "" for none
	addresses netip.Prefix // that Site is, invalid for none
}

const (
	// hostPinRule is the name of the rules that they make; those of the configuration have no spaces.
	hostPinRule = "tapgw pin"
	maxHostPins = 256
)

// addHostPins puts the rules of pins before all others, but for those at the head of the list by which sessions leave as they are:
// what goes to another site of a company does so whoever is pinned.
func (d *Daemon) addHostPins(p *policy.Plan) {
	first := slices.IndexFunc(p.Rules, func(r policy.Rule) bool { return !r.Action.Direct })
	if first < 0 {
		first = len(p.Rules)
	}
	groups := make(map[string]int)
	var rules []policy.Rule
	for _, pin := range d.pinnedHosts() {
		if _, known := groups[pin.Uplink]; !known {
			groups[pin.Uplink] = len(p.Groups)
			p.Groups = append(p.Groups, pinnedGroup(&p.Groups[policy.Everything], pin.Uplink))
		}
		rules = append(rules, d.ruleOfPin(p, &pin, groups[pin.Uplink]))
	}
	p.Rules = slices.Insert(p.Rules, first, rules...)
}

// pinnedGroup is one uplink, and all others when that is down.
func pinnedGroup(all *policy.Group, uplink string) policy.Group {
	return policy.Group{
		Name: hostPinRule + " " + uplink, Scheduler: all.Scheduler, Stickiness: all.Stickiness, WhenDown: policy.Everything,
		Members: []policy.Member{{Name: uplink}},
	}
}

func (d *Daemon) ruleOfPin(p *policy.Plan, pin *hostPin, group int) policy.Rule {
	g := &p.Groups[group]
	r := policy.Rule{
		Name: hostPinRule, Number: d.numbers.of(hostPinRule), Own: !pin.Inside.IsValid(),
		Action: policy.Action{Group: group, Scheduler: g.Scheduler, Stickiness: g.Stickiness, WhenDown: g.WhenDown},
	}
	if pin.Inside.IsValid() {
		r.From = []*policy.Set{policy.NewSet([]netip.Prefix{netip.PrefixFrom(pin.Inside, pin.Inside.BitLen())})}
	}
	if pin.domain != "" {
		r.Domains = []string{pin.domain}
	}
	if pin.addresses.IsValid() {
		r.To = []*policy.Set{policy.NewSet([]netip.Prefix{pin.addresses})}
	}
	return r
}

// pinHost pins a host, instead of what the same host and site were pinned to before. What names a site comes before what does not,
// else the latest first.
func (d *Daemon) pinHost(asked api.Pin) error {
	if !slices.Contains(d.names(), asked.Uplink) {
		return d.unknown(asked.Uplink, uplinks.ErrUnknown)
	}
	pin, err := d.readPin(asked)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrBadRequest, err)
	}
	list := d.hostPinsWithout(pin.Inside, pin.Site)
	if len(list) >= maxHostPins {
		return fmt.Errorf("%w: %d are pinned already; `tapgw pins` lists them", api.ErrConflict, maxHostPins)
	}
	list = append([]hostPin{pin}, list...)
	slices.SortStableFunc(list, func(a, b hostPin) int { return cmp.Compare(bare(&a), bare(&b)) })
	message := pin.who() + " uses it"
	if !pin.Until.IsZero() {
		message += " until " + pin.Until.Format(time.DateTime)
		time.AfterFunc(time.Until(pin.Until), d.lookAgain)
	}
	err = d.setHostPins(list)
	d.tell(api.EventPin, pin.Uplink, message)
	return err
}

// bare is 1 for a pin without a site.
func bare(p *hostPin) int {
	if p.Site == "" {
		return 1
	}
	return 0
}

// readPin checks what somebody asks for. This host is meant by its address on the TAP too.
func (d *Daemon) readPin(asked api.Pin) (pin hostPin, err error) {
	pin.Pin = asked
	pin.Inside = d.insideOf(asked.Inside)
	if a := pin.Inside; a.IsValid() && (a.Zone() != "" || !a.IsGlobalUnicast() && !a.IsLinkLocalUnicast()) {
		return pin, fmt.Errorf("%s is the address of no host", a)
	}
	if pin.Site == "" {
		return pin, nil
	}
	pin.domain, pin.addresses, err = configs.ParseSite(pin.Site)
	if to := pin.addresses.Addr(); to.IsValid() && pin.Inside.IsValid() && to.Is4() != pin.Inside.Is4() {
		return pin, fmt.Errorf("%s and %s are of different families", pin.Inside, pin.Site)
	}
	pin.Site = pin.site()
	return pin, err
}

// site is how it is written, however it was given.
func (p *hostPin) site() string {
	switch {
	case p.domain != "":
		return p.domain
	case p.addresses.IsSingleIP():
		return p.addresses.Addr().String()
	}
	return p.addresses.String()
}

// insideOf is an address as pins have it: none for this host.
func (d *Daemon) insideOf(a netip.Addr) netip.Addr {
	if a = a.Unmap(); a == d.hostOn(uplinks.IPv4) || a == d.hostOn(uplinks.IPv6) {
		return netip.Addr{}
	}
	return a
}

// who names the host and the site of a pin.
func (p *hostPin) who() string {
	who := "this host"
	if p.Inside.IsValid() {
		who = p.Inside.String()
	}
	if p.Site != "" {
		who += " to " + p.Site
	}
	return who
}

// unpin ends one.
func (d *Daemon) unpin(inside netip.Addr, site string) error {
	pin, err := d.readPin(api.Pin{Inside: inside, Site: site})
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrBadRequest, err)
	}
	list := d.hostPinsWithout(pin.Inside, pin.Site)
	if len(list) == len(d.pinnedHosts()) {
		return fmt.Errorf("%w: there is no such pin; `tapgw pins` lists them", api.ErrConflict)
	}
	return d.keepHostPins(list, "")
}

// hostPinsWithout are all but those of a host and a site.
func (d *Daemon) hostPinsWithout(inside netip.Addr, site string) []hostPin {
	return slices.DeleteFunc(slices.Clone(d.pinnedHosts()), func(p hostPin) bool { return p.Inside == inside && p.Site == site })
}

// endHostPins ends those whose time is over.
func (d *Daemon) endHostPins(now time.Time) {
	before := d.pinnedHosts()
	left := slices.DeleteFunc(slices.Clone(before), func(p hostPin) bool { return !p.Until.IsZero() && isOver(p.Until, now) })
	if len(left) < len(before) {
		d.complain(d.keepHostPins(left, ", as its time is over"))
	}
}

// keepHostPins leaves some, and tells of those that end.
func (d *Daemon) keepHostPins(left []hostPin, why string) error {
	before := d.pinnedHosts()
	err := d.setHostPins(left)
	for _, p := range before {
		if !slices.Contains(left, p) {
			d.tell(api.EventUnpin, p.Uplink, p.who()+" uses what is best again"+why)
		}
	}
	return err
}

// pinnedHosts is all of them, in the order in which they are looked at.
func (d *Daemon) pinnedHosts() []hostPin {
	if pins := d.hostPins.Load(); pins != nil {
		return *pins
	}
	return nil
}

// setHostPins has the rules follow.
func (d *Daemon) setHostPins(pins []hostPin) error {
	d.hostPins.Store(&pins)
	return d.setPlan(d.plan(d.cfg()))
}

// Pins answers GET /v1/pins.
func (b backend) Pins() (list []api.Pin) {
	for _, p := range b.pinnedHosts() {
		list = append(list, p.Pin)
	}
	return list
}

// PinHost answers POST /v1/pins.
func (b backend) PinHost(p api.Pin) error {
	return b.ask(func() error { return b.pinHost(p) })
}

// Unpin answers DELETE /v1/pins.
func (b backend) Unpin(inside netip.Addr, site string) error {
	return b.ask(func() error { return b.unpin(inside, site) })
}
