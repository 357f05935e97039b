package policy

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"
)

// Rule says what is done with some sessions: those that each of its matchers which is not empty matches, by any of its values.
type Rule struct {
	Name   string
	Number uint32 // the caller's, to be kept with the session; 0 for none
	Action Action

	Own         bool // of the host itself alone
	From, To    []*Set
	MACs        []MAC
	Interfaces  []string
	Ports       []PortRange // of the remote
	Protocols   []uint8
	DSCP        []uint8
	Domains     []string // and all below each: small letters, no final dot
	Users       []string // names or numbers
	Units       []string // systemd units, or paths of cgroups and all below
	Executables []string // absolute paths, or names of the file
	Times       []Span
}

// PortRange is an inclusive range of ports.
type PortRange struct{ First, Last uint16 }

// Set is addresses, given as any number of prefixes.
type Set struct{ table bart.Lite }

// NewSet makes a set of prefixes of both families.
func NewSet(prefixes []netip.Prefix) *Set {
	s := new(Set)
	for _, p := range prefixes {
		s.table.Insert(p)
	}
	return s
}

// Has reports whether an address is in the set.
func (s *Set) Has(a netip.Addr) bool { return s.table.Contains(a) }

// Days are those of the week, a bit for each from Sunday on.
type Days uint8

// EveryDay is the whole week.
const EveryDay Days = 1<<7 - 1

// Span is a part of some days. One that ends before it begins ends on the day after.
type Span struct {
	Days        Days
	First, Last uint16 // minutes of the day; Last is not part of it, and may be 1,440
}

// has reports whether a minute is in the span.
func (p *Span) has(m Minute) bool {
	day, minute := m/minutesOfDay%7, uint16(m%minutesOfDay)
	on := func(day Minute) bool { return p.Days&(1<<(day%7)) != 0 }
	if p.First < p.Last {
		return on(day) && minute >= p.First && minute < p.Last
	}
	return on(day) && minute >= p.First || on(day+6) && minute < p.Last
}

// Field names a matcher of a rule, as the configuration does.
type Field string

// The fields, those that cost little first: they are looked at in this order.
const (
	Matched      Field = "" // none failed
	ByProtocol   Field = "protocols"
	ByPort       Field = "ports"
	ByDSCP       Field = "dscp"
	ByDirect     Field = "direct" // the session cannot leave as it is
	ByTime       Field = "times"
	ByFrom       Field = "from"
	ByTo         Field = "to"
	ByInterface  Field = "interface"
	ByMAC        Field = "mac"
	ByDomain     Field = "domains"
	ByUser       Field = "users"
	ByUnit       Field = "units"
	ByExecutable Field = "executables"
)

// NoRule stands for the number of a rule.
const NoRule = -1

// Find returns the index of the first rule that matches, or NoRule. It allocates nothing but what the facts do.
func (p *Plan) Find(s *Session, f *Facts) int {
	for i := range p.Rules {
		if p.Rules[i].Fails(s, f) == Matched {
			return i
		}
	}
	return NoRule
}

// Fails returns the first matcher that does not match, Matched when all do.
func (r *Rule) Fails(s *Session, f *Facts) Field {
	switch {
	case !among(r.Protocols, s.Proto):
		return ByProtocol
	case !r.hasPort(s):
		return ByPort
	case !among(r.DSCP, s.DSCP):
		return ByDSCP
	case r.Action.Direct && s.Own:
		return ByDirect
	case !r.hasTime(s.Minute):
		return ByTime
	case r.Own && !s.Own, !anyHas(r.From, s.Inside):
		return ByFrom
	case !anyHas(r.To, s.Remote):
		return ByTo
	}
	return r.failsFacts(s, f)
}

// failsFacts is Fails for what must be asked.
func (r *Rule) failsFacts(s *Session, f *Facts) Field {
	if len(r.Interfaces) > 0 && !among(r.Interfaces, f.interfaceOf(s)) {
		return ByInterface
	}
	if len(r.MACs) > 0 {
		if mac, ok := f.macOf(s); !ok || !among(r.MACs, mac) {
			return ByMAC
		}
	}
	if len(r.Domains) > 0 && !r.hasDomain(f.domainsOf(s)) {
		return ByDomain
	}
	return r.failsOwner(s, f)
}

// failsOwner is Fails for whose socket it is.
func (r *Rule) failsOwner(s *Session, f *Facts) Field {
	if len(r.Users) == 0 && len(r.Units) == 0 && len(r.Executables) == 0 {
		return Matched
	}
	o, known := f.ownerOf(s)
	switch {
	case len(r.Users) > 0 && !(known && r.hasUser(&o)):
		return ByUser
	case len(r.Units) > 0 && !(known && r.hasUnit(o.Cgroup)):
		return ByUnit
	case len(r.Executables) > 0 && !(known && r.hasExecutable(o.Executable)):
		return ByExecutable
	}
	return Matched
}

// among reports whether a list has a value; an empty one has all.
func among[T comparable](list []T, v T) bool {
	for i := range list {
		if list[i] == v {
			return true
		}
	}
	return len(list) == 0
}

func anyHas(sets []*Set, a netip.Addr) bool {
	for _, s := range sets {
		if s.Has(a) {
			return true
		}
	}
	return len(sets) == 0
}

// hasPort is false for protocols without ports when some are wanted.
func (r *Rule) hasPort(s *Session) bool {
	for _, p := range r.Ports {
		if s.RemotePort >= p.First && s.RemotePort <= p.Last {
			return true
		}
	}
	return len(r.Ports) == 0
}

func (r *Rule) hasTime(m Minute) bool {
	for i := range r.Times {
		if r.Times[i].has(m) {
			return true
		}
	}
	return len(r.Times) == 0
}

func (r *Rule) hasDomain(names []string) bool {
	for _, name := range names {
		for _, d := range r.Domains {
			if within(name, d, '.') {
				return true
			}
		}
	}
	return false
}

// within reports whether a name is the domain, or one below it.
func within(name, domain string, dot byte) bool {
	rest, ok := strings.CutSuffix(name, domain)
	return ok && (rest == "" || rest[len(rest)-1] == dot)
}

func (r *Rule) hasUser(o *Owner) bool {
	for _, user := range r.Users {
		if user == o.User && user != "" {
			return true
		}
		if user != "" && user[0] >= '0' && user[0] <= '9' { // else the failure would be allocated
			if uid, err := strconv.ParseUint(user, 10, 32); err == nil && uint32(uid) == o.UID {
				return true
			}
		}
	}
	return false
}

// hasUnit looks for the unit in the path of the cgroup: units of one user lie below those of the system.
func (r *Rule) hasUnit(cgroup string) bool {
	for _, unit := range r.Units {
		if rest, ok := strings.CutPrefix(cgroup, unit); ok && strings.HasPrefix(unit, "/") && (rest == "" || rest[0] == '/') {
			return true
		}
		for part := range strings.SplitSeq(cgroup, "/") {
			if part == unit && unit != "" {
				return true
			}
		}
	}
	return false
}

func (r *Rule) hasExecutable(path string) bool {
	for _, e := range r.Executables {
		if path == e || !strings.HasPrefix(e, "/") && within(path, e, '/') {
			return true
		}
	}
	return false
}
