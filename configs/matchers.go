package configs

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// parsePrefix reads a prefix of either family, or an address for one alone.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if a, alone := netip.ParseAddr(s); alone == nil {
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	switch {
	case err != nil || p.Addr().Is4In6() || p.Addr().Zone() != "":
		return p, faultf("write for example 10.8.0.0/16 or fd00:8::/32", "%s is not a prefix", quote(s))
	case p != p.Masked():
		return p, faultf("write "+p.Masked().String(), "%s has bits beyond its length", p)
	}
	return p, nil
}

// parsePlace reads a prefix, an address or the name of a set.
func parsePlace(s string) (Place, error) {
	if !strings.ContainsAny(s, "/:") && strings.ContainsFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }) {
		name, err := parseName(s)
		return Place{Set: name}, err
	}
	p, err := parsePrefix(s)
	return Place{Prefix: p}, err
}

// String is the place as the file has it.
func (p Place) String() string {
	if p.Set != "" {
		return p.Set
	}
	return p.Prefix.String()
}

func parseMAC(s string) (m MAC, err error) {
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '-' })
	bad := faultf("write for example 00:16:3e:12:34:56", "%s is not a hardware address", quote(s))
	if len(parts) != len(m) {
		return m, bad
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 16, 8)
		if err != nil || len(part) != 2 {
			return m, bad
		}
		m[i] = byte(n)
	}
	if m[0]&1 != 0 || m == (MAC{}) {
		return m, faultf("write that of one device", "%s is no device's", m)
	}
	return m, nil
}

// String is the address as the file has it.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// parseAnyPorts reads one port or an inclusive range.
func parseAnyPorts(s string) (PortRange, error) {
	return readPorts(s, "write ports from 1 to 65535, or ranges like 8000-8999")
}

// readPorts is parseAnyPorts with what to write instead of what is no range.
func readPorts(s, fix string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	low, errLow := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	high, errHigh := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	switch {
	case errLow != nil || errHigh != nil || low == 0:
		return PortRange{}, faultf(fix, "%s is not a range of ports", quote(s))
	case high < low:
		return PortRange{}, faultf("write the smaller port first", "%s runs backwards", quote(s))
	}
	return PortRange{uint16(low), uint16(high)}, nil
}

// protocolNames are those that rules know by name; "icmp" is that of either family.
var protocolNames = []struct {
	name   string
	number uint8
}{
	{"tcp", 6}, {"udp", 17}, {"icmp", 1}, {"icmpv6", 58}, {"gre", 47}, {"esp", 50}, {"ah", 51}, {"sctp", 132}, {"dccp", 33}, {"udplite", 136},
}

func parseProtocol(s string) (uint8, error) {
	var names []string
	for _, p := range protocolNames {
		if p.name == s {
			return p.number, nil
		}
		names = append(names, p.name)
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, faultf("use "+strings.Join(names, ", ")+" or a number", "%s is not a protocol", quote(s))
	}
	return uint8(n), nil
}

func formatProtocol(n uint8) string {
	for _, p := range protocolNames {
		if p.number == n {
			return p.name
		}
	}
	return strconv.Itoa(int(n))
}

// parseDSCP reads a codepoint: a number, or csN, afNM (RFC 2597), ef (RFC 3246), va (RFC 5865) or le (RFC 8622).
func parseDSCP(s string) (uint8, error) {
	switch word := strings.ToLower(s); {
	case word == "ef":
		return 46, nil
	case word == "va":
		return 44, nil
	case word == "le":
		return 1, nil
	case len(word) == 3 && word[:2] == "cs" && word[2] >= '0' && word[2] <= '7':
		return (word[2] - '0') * 8, nil
	case len(word) == 4 && word[:2] == "af" && word[2] >= '1' && word[2] <= '4' && word[3] >= '1' && word[3] <= '3':
		return (word[2]-'0')*8 + (word[3]-'0')*2, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n > 63 {
		return 0, faultf("write 0 to 63, or a name as ef, cs1 or af41", "%s is not a codepoint", quote(s))
	}
	return uint8(n), nil
}

// parseDomain reads a name of the DNS, of which all below is meant too.
func parseDomain(s string) (string, error) {
	d := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(s), "*"), "."), ".")
	fit := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
	}
	switch {
	case strings.ContainsFunc(d, func(r rune) bool { return r > '~' }):
		return "", faultf("write its form that begins with xn--", "%s has letters that the DNS does not know", quote(s))
	case d == "" || len(d) > 253 || strings.Contains(d, "..") || strings.ContainsFunc(d, func(r rune) bool { return !fit(r) }):
		return "", faultf("write for example example.com, which means all below it too", "%s is not a domain", quote(s))
	}
	return d, nil
}

// ParseSite reads whom a host may talk to: a domain with all below it, or addresses.
func ParseSite(s string) (domain string, addresses netip.Prefix, err error) {
	if _, failed := netip.ParseAddr(s); failed == nil || strings.Contains(s, "/") {
		addresses, err = parsePrefix(s)
		return "", addresses, err
	}
	domain, err = parseDomain(s)
	return domain, addresses, err
}

// parseWord makes a parser of what only the machine knows.
func parseWord(kind, example string) func(string) (string, error) {
	return func(s string) (string, error) {
		if s == "" || len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ',' }) {
			return "", faultf("write for example "+example, "%s is not %s", quote(s), kind)
		}
		return s, nil
	}
}

// dayNames are the days of a Span, by their bit.
var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

const (
	everyDay     = 1<<7 - 1
	minutesOfDay = 24 * 60
)

// parseSpan reads days, hours or both, as "mon-fri 08:00-18:00", "sat,sun" or "22:00-06:00".
func parseSpan(s string) (Span, error) {
	span := Span{Days: everyDay, Last: minutesOfDay}
	words := strings.Fields(strings.ToLower(s))
	bad := faultf("write for example mon-fri 08:00-18:00", "%s is no time of the week", quote(s))
	if len(words) == 0 || len(words) > 2 {
		return span, bad
	}
	for i, word := range words {
		var ok bool
		if strings.Contains(word, ":") {
			span.First, span.Last, ok = parseHours(word)
		} else if i == 0 {
			span.Days, ok = parseDays(word)
		}
		if !ok {
			return span, bad
		}
	}
	if len(words) == 2 && (strings.Contains(words[0], ":") || !strings.Contains(words[1], ":")) {
		return span, bad
	}
	if span == (Span{everyDay, 0, minutesOfDay}) {
		return span, faultf("leave it out", "%s is always", quote(s))
	}
	return span, nil
}

// parseHours reads 08:00-18:00.
func parseHours(s string) (first, last uint16, ok bool) {
	begin, end, _ := strings.Cut(s, "-")
	first, okFirst := parseClock(begin)
	last, okLast := parseClock(end)
	if last == 0 {
		last = minutesOfDay
	}
	return first, last, okFirst && okLast && first < minutesOfDay && first != last
}

func parseClock(s string) (minute uint16, ok bool) {
	hours, minutes, _ := strings.Cut(s, ":")
	h, errH := strconv.ParseUint(hours, 10, 8)
	m, errM := strconv.ParseUint(minutes, 10, 8)
	minute = uint16(h*60 + m)
	return minute, errH == nil && errM == nil && len(minutes) == 2 && m < 60 && minute <= minutesOfDay
}

// parseDays reads mon, mon-fri, or several of those with commas.
func parseDays(s string) (days uint8, ok bool) {
	for item := range strings.SplitSeq(s, ",") {
		begin, end, isRange := strings.Cut(item, "-")
		if !isRange {
			end = begin
		}
		first, last := slices.Index(dayNames, begin), slices.Index(dayNames, end)
		if first < 0 || last < 0 {
			return 0, false
		}
		for day := first; ; day = (day + 1) % len(dayNames) {
			days |= 1 << day
			if day == last {
				break
			}
		}
	}
	return days, true
}

// String is the span as the file has it.
func (p Span) String() string {
	var days []string
	for i := range dayNames {
		if day := (i + 1) % len(dayNames); p.Days&(1<<day) != 0 { // from Monday on
			days = append(days, dayNames[day])
		}
	}
	hours := formatClock(p.First) + "-" + formatClock(p.Last)
	switch {
	case p.Days == everyDay:
		return hours
	case p.First == 0 && p.Last == minutesOfDay:
		return strings.Join(days, ",")
	}
	return strings.Join(days, ",") + " " + hours
}

func formatClock(minute uint16) string { return fmt.Sprintf("%02d:%02d", minute/60, minute%60) }
