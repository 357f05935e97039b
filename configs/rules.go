package configs

import (
	"net/netip"
	"strconv"
	"strings"
)

// Limits of rules and what they name.
const (
	maxRules  = 256
	maxGroups = 60
	maxSets   = 64
)

// Keys of the file that hold what the user names.
const (
	setsKey   = "sets"
	groupsKey = "groups"
	rulesKey  = "rules"
)

// GroupAll is the name of the group of all uplinks, which always is there.
const GroupAll = "all"

// What a when_down may be beside the name of the group to ask next.
const (
	WhenDownAny    = "any"    // whatever uplink works
	WhenDownRefuse = "refuse" // the sender is told at once
)

// Set is a named set of addresses.
type Set struct {
	Name     string
	Prefixes []netip.Prefix
	Files    []string       // absolute paths of more: one prefix a line
	Read     []netip.Prefix // what was in the files
}

// Group is some uplinks, and how one of them is chosen.
type Group struct {
	Name       string
	Uplinks    []Member
	Scheduler  string     // "" for that of Policy
	Stickiness Stickiness // "" for that of Policy
	WhenDown   string     // WhenDownAny, WhenDownRefuse or the name of a group
}

// Member is an uplink of a group, by its name or interface.
type Member struct {
	Uplink string
	Tier   int // in this group; InheritTier for the uplink's own
}

// InheritTier stands for the tier of the uplink itself.
const InheritTier = -1

// Stickiness says which sessions stay on one uplink.
type Stickiness string

// The values of a Stickiness.
const (
	StickyAuto    Stickiness = "auto"    // TCP and UDP to port 443 as StickySite, all else as StickySession
	StickySession Stickiness = "session" // each session is placed anew
	StickySite    Stickiness = "site"    // those of one host to one site
	StickyClient  Stickiness = "client"  // all of one host
)

var stickinesses = []Stickiness{StickyAuto, StickySession, StickySite, StickyClient}

// Rule says where some sessions go: those that all its matchers match which are not empty, each by any of its values.
type Rule struct {
	Name        string
	From, To    []Place
	MAC         []MAC
	Interface   []string
	Ports       []PortRange // of the remote
	Protocols   []uint8
	DSCP        []uint8
	Domains     []string // and all below: small letters, no dot at the end
	Users       []string
	Units       []string
	Executables []string
	Times       []Span

	Use        string // name of a group; for Direct it may be empty
	Direct     bool
	Scheduler  string     // "" for that of the group
	Stickiness Stickiness // "" for that of the group
	WhenDown   string     // "" for that of the group

	OnUplinkDown OnUplinkDown // "" for that of Policy
}

// Place is a prefix, or a set of them.
type Place struct {
	Prefix netip.Prefix
	Set    string // its name, "" for a prefix
}

// MAC is a hardware address.
type MAC [6]byte

// Span is a part of some days of the week, in local time. One that ends before it begins ends on the day after.
type Span struct {
	Days        uint8  // a bit for each, from Sunday on
	First, Last uint16 // minutes of the day; Last is not part of it, and may be 1,440
}

// groupFields and ruleFields are the keys of one element of each; the name of a group is its key.
var (
	groupFields = []field[Group]{
		list("uplinks", "", func(g *Group) *[]Member { return &g.Uplinks }, parseMember, Member.String),
		optional("scheduler", func(g *Group) *string { return &g.Scheduler }, parseScheduler, formatText),
		optional("stickiness", func(g *Group) *Stickiness { return &g.Stickiness }, parseStickiness, formatText),
		scalar("when_down", func(g *Group) *string { return &g.WhenDown }, parseName, formatText),
	}

	ruleFields = []field[Rule]{
		optional("name", func(r *Rule) *string { return &r.Name }, parseName, formatText),
		list("from", "", func(r *Rule) *[]Place { return &r.From }, parsePlace, Place.String),
		list("mac", "", func(r *Rule) *[]MAC { return &r.MAC }, parseMAC, MAC.String),
		list("interface", "", func(r *Rule) *[]string { return &r.Interface }, parseInterface, formatText),
		list("to", "", func(r *Rule) *[]Place { return &r.To }, parsePlace, Place.String),
		list("domains", "", func(r *Rule) *[]string { return &r.Domains }, parseDomain, formatText),
		list("ports", "", func(r *Rule) *[]PortRange { return &r.Ports }, parseAnyPorts, formatPorts),
		list("protocols", "", func(r *Rule) *[]uint8 { return &r.Protocols }, parseProtocol, formatProtocol),
		list("dscp", "", func(r *Rule) *[]uint8 { return &r.DSCP }, parseDSCP, func(n uint8) string { return strconv.Itoa(int(n)) }),
		list("users", "", func(r *Rule) *[]string { return &r.Users }, parseWord("a user", "alice or 1000"), formatText),
		list("units", "", func(r *Rule) *[]string { return &r.Units }, parseWord("a unit", "backup.service or /user.slice"), formatText),
		list("executables", "", func(r *Rule) *[]string { return &r.Executables }, parseWord("a program", "firefox or /usr/bin/rsync"), formatText),
		inPhrases(list("times", "", func(r *Rule) *[]Span { return &r.Times }, parseSpan, Span.String)),
		optional("use", func(r *Rule) *string { return &r.Use }, parseName, formatText),
		optional("direct", func(r *Rule) *bool { return &r.Direct }, parseBool, strconv.FormatBool),
		optional("scheduler", func(r *Rule) *string { return &r.Scheduler }, parseScheduler, formatText),
		optional("stickiness", func(r *Rule) *Stickiness { return &r.Stickiness }, parseStickiness, formatText),
		optional("when_down", func(r *Rule) *string { return &r.WhenDown }, parseName, formatText),
		optional("on_uplink_down", func(r *Rule) *OnUplinkDown { return &r.OnUplinkDown }, parseOnUplinkDown, formatText),
	}
)

// defaultGroup is what an element of groups starts from.
var defaultGroup = Group{WhenDown: WhenDownAny}

// inPhrases makes a list whose values may contain blanks and commas.
func inPhrases[T any](f field[T]) field[T] {
	f.phrases = true
	return f
}

func parseStickiness(s string) (Stickiness, error) {
	return oneOf(s, "a way to keep sessions together", stickinesses)
}

// parseMember reads an uplink, or uplink=tier.
func parseMember(s string) (Member, error) {
	uplink, tier, given := strings.Cut(s, "=")
	m := Member{Uplink: strings.TrimSpace(uplink), Tier: InheritTier}
	if m.Uplink == "" {
		return m, faultf("write for example fiber, or lte=1 for one of tier 1", "%s names no uplink", quote(s))
	}
	if _, err := parseName(m.Uplink); err != nil {
		return m, err
	}
	if !given {
		return m, nil
	}
	n, err := within(0, 100)(strings.TrimSpace(tier))
	m.Tier = n
	return m, err
}

// String is the member as the file has it.
func (m Member) String() string {
	if m.Tier == InheritTier {
		return m.Uplink
	}
	return m.Uplink + "=" + strconv.Itoa(m.Tier)
}

// decodeRules turns what the user named into values.
func (l *loader) decodeRules() {
	for _, tree := range l.blocks(setsKey) {
		l.config.Sets = append(l.config.Sets, l.set(tree))
	}
	for _, tree := range l.blocks(groupsKey) {
		g := Group{Name: takeName(tree)}
		decodeElement(l, &g, defaultGroup, groupFields, tree, join(groupsKey, g.Name))
		l.config.Groups = append(l.config.Groups, g)
	}
	for i, tree := range l.blocks(rulesKey) {
		var r Rule
		decodeElement(l, &r, Rule{}, ruleFields, tree, index(rulesKey, i))
		if r.Name == "" && !l.failed[index(rulesKey, i)+".name"] {
			r.Name = "rule" + strconv.Itoa(i+1)
		}
		l.config.Rules = append(l.config.Rules, r)
	}
}

// blocks are the elements of a key that holds several.
func (l *loader) blocks(key string) (trees []map[string]any) {
	elements, _ := l.layers.Get(key).([]any)
	for _, element := range elements {
		tree, _ := element.(map[string]any)
		trees = append(trees, tree)
	}
	return trees
}

// nameOf holds the key of a named element beside what the file says of it; no file can give it.
const nameOf = "="

// membersOf holds the values of a named list in its tree.
const membersOf = "=members"

// takeName takes the name of an element out of its tree.
func takeName(tree map[string]any) string {
	name, _ := tree[nameOf].(string)
	delete(tree, nameOf)
	return name
}

// set decodes one element of sets.
func (l *loader) set(tree map[string]any) Set {
	s := Set{Name: takeName(tree)}
	members, _ := tree[membersOf].([]string)
	for i, member := range members {
		where := index(join(setsKey, s.Name), i)
		if strings.HasPrefix(member, "/") {
			s.Files = append(s.Files, member)
			s.Read = append(s.Read, l.readPrefixes(member, where)...)
		} else if p, err := parsePrefix(member); err == nil {
			s.Prefixes = append(s.Prefixes, p)
		} else if !l.failed[where] {
			l.fail(l.problem(where, err))
		}
	}
	return s
}

// texts are the values of a set as the file has them.
func (s *Set) texts() (list []string) {
	for _, p := range s.Prefixes {
		list = append(list, p.String())
	}
	return append(list, s.Files...)
}
