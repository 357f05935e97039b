package uplinks

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// ErrUnknown is returned for an uplink name or ID that the tracker does not have.
var ErrUnknown = errors.New("no such uplink (see `tapgw uplinks`)")

// Spec is what the configuration says of one uplink. Zero fields are found out from the kernel.
type Spec struct {
	Name      string       // defaults to Interface
	Interface string       // defaults to Name
	Gateway   netip.Addr   // overrides the default route's
	Addresses []netip.Addr // overrides the interface's
	Static    []Static     // their outside addresses need not be the interface's: it is enough that they are routed here
	NPTv6     []NPTv6
	Resolvers []netip.Addr // of the ISP

	CapacityUp, CapacityDown uint64 // bits per second
	Weight                   int
	Tier                     int
	Metered                  bool // its data cost money
	OnRecover                OnRecover
	Disabled                 bool
}

// TrackerConfig is what a Tracker works by.
type TrackerConfig struct {
	Specs   []Spec // when given, only these are uplinks
	TapName string // never an uplink, nor is the give-back device TapName+"u"
	// AssumeHealthy makes a ready uplink up without any probe: for a configuration without probe targets.
	AssumeHealthy bool
	// AssumeHealthyV6 is the same for IPv6.
	AssumeHealthyV6 bool
	// Flapping is in which time the memory of an uplink's falls fades to half: one that goes down a third time in about that time is
	// degraded until it has stayed up for twice to four times as long. 0 is never.
	Flapping time.Duration
	// Busy reports whether an uplink still carries sessions: one that Specs no longer name then stays, without new ones,
	// until they have ended. Nil means that none does.
	Busy func(id uint8) bool
}

// Tracker turns facts into uplinks with stable IDs and states. It is not safe for concurrent use; its snapshots are.
//
// Without Specs an uplink is every device with a default route in table main, of any family, and every point-to-point device with
// a global address, that is neither ours nor loopback nor a VPN's (see inFront). Once known it stays known.
type Tracker struct {
	cfg         TrackerConfig
	list        [MaxUplinks]*tracked
	generations [families][MaxUplinks]uint32 // last used per ID, so that a reused ID never repeats one
	commands    commands
	stopped     map[string]string // why an uplink is to take no new sessions, by name
	views       [families]*view
}

// tracked is what the tracker remembers of one uplink between updates.
type tracked struct {
	id         uint8
	name       string
	spec       Spec
	configured bool // spec comes from the configuration
	leaving    bool // the configuration no longer names it, but it is busy
	iface      string
	link       Link // Index 0 while the interface is gone
	seen       bool // the interface has existed
	goneSince  time.Time

	sides [families]side
}

// NewTracker returns a tracker that knows no facts yet.
func NewTracker(cfg TrackerConfig) *Tracker {
	t := &Tracker{commands: commands{disabled: make(map[string]bool), metered: make(map[string]bool)}}
	t.look(Facts{})
	t.cfg = normalised(cfg)
	return t
}

func normalised(cfg TrackerConfig) TrackerConfig {
	cfg.Specs = slices.Clone(cfg.Specs)
	for i := range cfg.Specs {
		s := &cfg.Specs[i]
		if s.Name == "" {
			s.Name = s.Interface
		}
		if s.Interface == "" {
			s.Interface = s.Name
		}
	}
	return cfg
}

// Configure replaces the configuration. An uplink keeps its ID and sessions when its name or its interface stays; the
// change shows at the next Update or Refresh.
func (t *Tracker) Configure(cfg TrackerConfig) { t.cfg = normalised(cfg) }

// Update takes new facts and returns the uplinks as of now and what changed since the last call.
func (t *Tracker) Update(now time.Time, f Facts) (*Snapshot, []Event) {
	t.look(f)
	return t.Refresh(now)
}

func (t *Tracker) look(f Facts) {
	for _, family := range Families {
		t.views[family] = newView(f.Of(family))
	}
}

// Refresh is Update with the facts of the last one, for after SetHealth, SetDisabled or Configure.
func (t *Tracker) Refresh(now time.Time) (*Snapshot, []Event) {
	events := t.applySpecs(now)
	t.matchLinks()
	t.discover()
	var list []*Uplink
	for _, u := range t.list {
		if u == nil {
			continue
		}
		events = append(events, t.refresh(now, u)...)
		list = append(list, t.publish(u))
	}
	return NewSnapshot(list), events
}

// SetHealth stores what a prober says of a side of an uplink. It must be called after every round, changed or not, because a new
// address makes the old verdict void. An error wraps ErrUnknown.
func (t *Tracker) SetHealth(id uint8, f Family, h Health) error {
	if int(id) >= len(t.list) || t.list[id] == nil {
		return fmt.Errorf("uplink %d: %w", id, ErrUnknown)
	}
	s := &t.list[id].sides[f]
	s.health, s.proven = h, s.proven || h.Usable
	return nil
}

// SetStopped says which uplinks, by name, are to take no new sessions for a reason that is none of theirs, one clause for people. It
// replaces what the last call said, and reports whether that differs; Refresh shows it.
func (t *Tracker) SetStopped(why map[string]string) (changed bool) {
	changed = !maps.Equal(t.stopped, why)
	t.stopped = maps.Clone(why)
	return changed
}

// applySpecs makes the list follow the configuration: configured uplinks exist whatever the kernel says, others leave.
func (t *Tracker) applySpecs(now time.Time) []Event {
	if len(t.cfg.Specs) == 0 {
		for _, u := range t.list {
			if u != nil {
				u.configured, u.leaving, u.spec = false, false, Spec{}
			}
		}
		return nil
	}
	var kept [MaxUplinks]bool
	for _, s := range t.cfg.Specs {
		u := t.forSpec(s)
		if u == nil {
			u = t.add(s.Name)
		}
		if u == nil {
			continue // more Specs than MaxUplinks: the configuration's validation says so
		}
		if !u.configured || u.spec.Interface != s.Interface {
			u.iface = s.Interface
		}
		u.name, u.spec, u.configured, u.leaving = s.Name, s, true, false
		kept[u.id] = true
	}
	return t.dropExcept(now, kept)
}

// forSpec finds the uplink that s describes: by name, else by interface unless another Spec has that uplink's name.
func (t *Tracker) forSpec(s Spec) *tracked {
	for _, u := range t.list {
		if u != nil && u.name == s.Name {
			return u
		}
	}
	for _, u := range t.list {
		if u != nil && u.iface == s.Interface && !t.hasSpec(u.name) {
			return u
		}
	}
	return nil
}

func (t *Tracker) hasSpec(name string) bool {
	return slices.ContainsFunc(t.cfg.Specs, func(s Spec) bool { return s.Name == name })
}

func (t *Tracker) dropExcept(now time.Time, kept [MaxUplinks]bool) (events []Event) {
	for id, u := range t.list {
		if u == nil || kept[id] {
			continue
		}
		if u.leaving = t.cfg.Busy != nil && t.cfg.Busy(u.id); u.leaving {
			continue
		}
		t.list[id] = nil
		events = append(events, Event{Time: now, Kind: Vanished, ID: u.id, Uplink: u.name, From: u.sides[IPv4].state, To: Down,
			Reason: "no longer configured"})
	}
	return events
}

// add makes an uplink with the lowest free ID, or nil when there is none.
func (t *Tracker) add(name string) *tracked {
	for id, u := range t.list {
		if u == nil {
			return t.put(uint8(id), name)
		}
	}
	return nil
}

func (t *Tracker) put(id uint8, name string) *tracked {
	u := &tracked{id: id, name: name, iface: name}
	for _, f := range Families {
		t.generations[f][id]++
		u.sides[f] = side{family: f, generation: t.generations[f][id]}
	}
	t.list[id] = u
	return u
}

// addEvicting is add for discovered uplinks: when every ID is taken, the one gone the longest makes room.
func (t *Tracker) addEvicting(name string) *tracked {
	if u := t.add(name); u != nil {
		return u
	}
	var oldest *tracked
	for _, u := range t.list {
		if u.link.Index == 0 && (oldest == nil || u.goneSince.Before(oldest.goneSince)) {
			oldest = u
		}
	}
	if oldest == nil {
		return nil
	}
	return t.put(oldest.id, name)
}

func (t *Tracker) publish(u *tracked) *Uplink {
	spec := t.commands.applied(u)
	up, down := spec.CapacityUp, spec.CapacityDown
	if speed := trustedSpeed(u.link); speed != 0 {
		up, down = nonZero(up, speed), nonZero(down, speed)
	}
	return &Uplink{
		ID: u.id, Name: u.name, Interface: u.iface, Index: u.link.Index,
		Side: u.sides[IPv4].publish(u), V6: u.sides[IPv6].publish(u),
		MAC: u.link.MAC, HeaderLess: u.link.HeaderLess, MTU: u.link.MTU,
		CapacityUp: up, CapacityDown: down, Weight: max(1, spec.Weight), Tier: spec.Tier, Preferred: t.commands.preferred == u.name,
		Metered: spec.Metered, MeteredByCommand: spec.Metered != u.spec.Metered, OnRecover: spec.OnRecover,
	}
}
