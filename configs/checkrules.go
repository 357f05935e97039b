package configs

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// checkSets refuses names that would mean something else where sets are named.
func (l *loader) checkSets() {
	for _, s := range l.config.Sets {
		key := join(setsKey, s.Name)
		if !strings.ContainsFunc(s.Name, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }) {
			l.refuse(key, "begin it with a letter", "%s could be an address", s.Name)
		}
		named := func(p Place) bool { return p.Set == s.Name }
		used := slices.ContainsFunc(l.config.Rules, func(r Rule) bool {
			return slices.ContainsFunc(r.From, named) || slices.ContainsFunc(r.To, named)
		})
		if !used {
			l.warn(key, "write its name into from or to of a rule", "no rule names this set")
		}
	}
}

// groupNames are those that can be named, that of all uplinks first.
func (l *loader) groupNames() []string {
	names := []string{GroupAll}
	for _, g := range l.config.Groups {
		names = append(names, g.Name)
	}
	return names
}

func (l *loader) checkGroups() {
	for _, g := range l.config.Groups {
		key := join(groupsKey, g.Name)
		switch g.Name {
		case GroupAll:
			l.refuse(key, "choose another name", "%s always is the group of all uplinks", g.Name)
		case WhenDownAny, WhenDownRefuse:
			l.refuse(key, "choose another name", "%s has a meaning in when_down", g.Name)
		}
		if len(g.Uplinks) == 0 && l.sound(key+".uplinks", key) {
			l.refuse(key, "add for example uplinks: [fiber, lte=1]", "has no uplinks")
		}
		l.checkMembers(g, key+".uplinks")
		l.checkWhenDown(g.WhenDown, g.Name, key+".when_down")
		if !l.isUsed(g.Name) {
			l.warn(key, "write use: "+g.Name+" into a rule", "no rule uses this group")
		}
	}
}

// isUsed reports whether anything names a group.
func (l *loader) isUsed(group string) bool {
	return slices.ContainsFunc(l.config.Rules, func(r Rule) bool { return r.Use == group || r.WhenDown == group }) ||
		slices.ContainsFunc(l.config.Groups, func(g Group) bool { return g.WhenDown == group && g.Name != group })
}

// checkMembers knows the uplinks only where they are listed; else the machine does.
func (l *loader) checkMembers(g Group, key string) {
	var names []string
	for _, u := range l.config.Uplinks {
		names = append(names, u.Name, u.Interface)
	}
	for i, m := range g.Uplinks {
		where := index(key, i)
		if slices.ContainsFunc(g.Uplinks[:i], func(o Member) bool { return o.Uplink == m.Uplink }) {
			l.refuse(where, "keep one", "%s is listed twice", m.Uplink)
		}
		if len(names) > 0 && !slices.Contains(names, m.Uplink) {
			l.refuse(where, among(m.Uplink, slices.Compact(names)), "%s is no uplink", quote(m.Uplink))
		}
	}
}

// among says what a name could be.
func among(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	return "use " + strings.Join(known[:min(len(known), 10)], ", ")
}

// checkWhenDown checks a when_down, which may be left out, of a group or of a rule that uses it.
func (l *loader) checkWhenDown(whenDown, group, key string) {
	names := append([]string{WhenDownAny, WhenDownRefuse}, l.groupNames()...)
	switch {
	case whenDown == "" || !l.sound(key):
	case whenDown == group && group != WhenDownAny && group != WhenDownRefuse:
		l.refuse(key, "name another group, any or refuse", "%s is asked already", group)
	case !slices.Contains(names, whenDown):
		l.refuse(key, among(whenDown, names), "%s is no group", quote(whenDown))
	}
}

func (l *loader) checkRules() {
	for i := range l.config.Rules {
		r, key := &l.config.Rules[i], index(rulesKey, i)
		if first := slices.IndexFunc(l.config.Rules[:i], func(o Rule) bool { return o.Name == r.Name }); first >= 0 && r.Name != "" {
			l.refuse(key+".name", "give each rule a name of its own", "%q already is %s", r.Name, index(rulesKey, first))
		}
		l.checkAction(r, key)
		l.checkPlaces(r.From, key+".from")
		l.checkPlaces(r.To, key+".to")
		if l.soundRule(key) {
			l.checkContradictions(r, key)
			l.checkReachable(i, key)
		}
	}
}

// soundRule is sound for all keys of a rule.
func (l *loader) soundRule(key string) bool {
	for failed := range l.failed {
		if strings.HasPrefix(failed, key) {
			return false
		}
	}
	return true
}

// checkAction looks at what a rule does.
func (l *loader) checkAction(r *Rule, key string) {
	if r.Use != "" && l.sound(key+".use") && !slices.Contains(l.groupNames(), r.Use) {
		l.refuse(key+".use", among(r.Use, l.groupNames()), "%s is no group", quote(r.Use))
	}
	switch {
	case r.Use == "" && !r.Direct && l.sound(key, key+".use", key+".direct"):
		l.refuse(key, "add use: with the name of a group, or direct: true", "does nothing")
	case r.Direct && r.Scheduler != "":
		l.refuse(key+".scheduler", "remove it", "what leaves as it is goes by the first uplink that works, without a scheduler")
	case r.Direct && r.Stickiness != "":
		l.refuse(key+".stickiness", "remove it", "what leaves as it is goes by the first uplink that works, always")
	case r.Direct && r.OnUplinkDown != "":
		l.refuse(key+".on_uplink_down", "remove it", "what leaves as it is goes on by another uplink")
	}
	l.checkWhenDown(r.WhenDown, cmp.Or(r.Use, GroupAll), key+".when_down")
}

func (l *loader) checkPlaces(places []Place, key string) {
	var names []string
	for _, s := range l.config.Sets {
		names = append(names, s.Name)
	}
	for i, p := range places {
		if p.Set != "" && !slices.Contains(names, p.Set) {
			fix := "write an address or prefix, or add the set under sets"
			if near := nearest(p.Set, names); near != "" {
				fix = "did you mean " + near + "?"
			}
			l.refuse(index(key, i), fix, "there is no set %s", quote(p.Set))
		}
	}
}

// checkContradictions refuses matchers that can never match together.
func (l *loader) checkContradictions(r *Rule, key string) {
	const tcp, udp = 6, 17
	hostOnly := len(r.Users)+len(r.Units)+len(r.Executables) > 0
	switch {
	case len(r.Ports) > 0 && len(r.Protocols) > 0 && !slices.Contains(r.Protocols, tcp) && !slices.Contains(r.Protocols, udp):
		l.refuse(key+".ports", "remove ports, or add tcp or udp to protocols", "none of the protocols has ports that rules see")
	case hostOnly && len(r.MAC)+len(r.Interface) > 0:
		l.refuse(key, "make two rules", "users, units and executables are this host's, mac and interface are hosts' of the LAN")
	case hostOnly && r.Direct:
		l.refuse(key+".direct", "use a group", "what this host itself sends is always translated")
	case r.Direct && len(r.From)+len(r.To) == 0 && l.sound(key, key+".from", key+".to"):
		l.refuse(key+".direct", "add from or to", "whose answers are let in must be known")
	case !oneFamily(r.From, r.To):
		l.refuse(key+".to", "make a rule for each family", "from and to have no family in common")
	}
}

// oneFamily reports whether an address of each list may be of the same family; what a set holds is not looked at.
func oneFamily(from, to []Place) bool {
	mayBe := func(list []Place, v6 bool) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(p Place) bool { return p.Set != "" || p.Prefix.Addr().Is6() == v6 })
	}
	return mayBe(from, false) && mayBe(to, false) || mayBe(from, true) && mayBe(to, true)
}

// checkReachable warns of a rule that another one leaves nothing.
func (l *loader) checkReachable(i int, key string) {
	r := &l.config.Rules[i]
	for j := range l.config.Rules[:i] {
		if o := &l.config.Rules[j]; l.soundRule(index(rulesKey, j)) && o.covers(r) {
			l.warn(key, "move it up, or remove it", "never matches, as %s before it takes all of its sessions", o.Name)
			return
		}
	}
}

// covers reports whether a rule matches all that another one does.
func (r *Rule) covers(o *Rule) bool {
	if r.Direct && !o.Direct { // what the host itself sends is left to o
		return false
	}
	return holds(r.From, o.From, Place.covers) && holds(r.To, o.To, Place.covers) && holds(r.MAC, o.MAC, same) &&
		holds(r.Interface, o.Interface, same) && holds(r.Ports, o.Ports, PortRange.covers) && holds(r.Protocols, o.Protocols, same) &&
		holds(r.DSCP, o.DSCP, same) && holds(r.Domains, o.Domains, above) && holds(r.Users, o.Users, same) &&
		holds(r.Units, o.Units, same) && holds(r.Executables, o.Executables, same) && holds(r.Times, o.Times, same)
}

// holds reports whether each value of small is covered by one of large; an empty list is all there is.
func holds[T any](large, small []T, covers func(large, small T) bool) bool {
	if len(large) == 0 {
		return true
	}
	return len(small) > 0 && !slices.ContainsFunc(small, func(s T) bool {
		return !slices.ContainsFunc(large, func(l T) bool { return covers(l, s) })
	})
}

func same[T comparable](a, b T) bool { return a == b }

// above reports whether a domain is another one or above it.
func above(domain, other string) bool {
	return domain == other || strings.HasSuffix(other, "."+domain)
}

func (p Place) covers(o Place) bool {
	if p.Set != "" || o.Set != "" {
		return p.Set == o.Set
	}
	return contains(p.Prefix, o.Prefix)
}

func contains(p, o netip.Prefix) bool { return p.Bits() <= o.Bits() && p.Contains(o.Addr()) }

func (r PortRange) covers(o PortRange) bool { return r.First <= o.First && o.Last <= r.Last }
