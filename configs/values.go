package configs

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

func formatText[T ~string](s T) string { return string(s) }

// within makes a parser of whole numbers.
func within(low, high int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || strings.HasPrefix(s, "+") {
			return 0, faultf("write a plain number like "+strconv.Itoa(low), "%s is not a whole number", quote(s))
		}
		if n < low || n > high {
			return 0, faultf(rangeFix(strconv.Itoa(low), strconv.Itoa(high)), "%d is out of range", n)
		}
		return n, nil
	}
}

func rangeFix(low, high string) string { return "use " + low + " to " + high }

// parseBool reads a switch.
func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, faultf("write true or false", "%s is neither true nor false", quote(s))
}

// lasting makes a parser of durations.
func lasting(low, high time.Duration) func(string) (time.Duration, error) {
	return func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if _, number := strconv.ParseFloat(s, 64); number == nil {
			return 0, faultf("write "+s+"s for seconds", "%s has no unit", quote(s))
		}
		if err != nil {
			return 0, faultf("write for example 800ms, 3s, 5m or 2h4m", "%s is not a duration", quote(s))
		}
		if d < low || d > high {
			return 0, faultf(rangeFix(formatDuration(low), formatDuration(high)), "%s is out of range", formatDuration(d))
		}
		return d, nil
	}
}

// formatDuration is d without the zero parts that time.Duration prints: 2h4m, not 2h4m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Bounds of a capacity in bits per second.
const (
	minRate = 1e3
	maxRate = 1e13
)

// rateUnits go from large to small, so that formatting finds the shortest form first.
var rateUnits = []struct {
	name string
	bits uint64
}{{"Tbit", 1e12}, {"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

// parseRate reads a capacity such as 100Mbit, 1.5Gbit or 800kbit/s.
func parseRate(s string) (uint64, error) {
	bad := faultf("write for example 100Mbit, 1.5Gbit or 800kbit", "%s is not a capacity", quote(s))
	text := strings.TrimSuffix(s, "/s")
	digits := strings.TrimLeft(text, "0123456789.")
	number, err := strconv.ParseFloat(text[:len(text)-len(digits)], 64)
	if err != nil {
		return 0, bad
	}
	for _, unit := range rateUnits {
		if !strings.EqualFold(strings.TrimSpace(digits), unit.name) {
			continue
		}
		bits := math.Round(number * float64(unit.bits))
		if bits < minRate || bits > maxRate {
			return 0, faultf("use 1kbit to 10Tbit", "%s is out of range", quote(s))
		}
		return uint64(bits), nil
	}
	return 0, bad
}

// formatRate is the shortest exact form that parseRate reads.
func formatRate(bits uint64) string {
	for _, unit := range rateUnits {
		if whole, rest := bits/unit.bits, bits%unit.bits; whole > 0 && rest%max(unit.bits/1000, 1) == 0 {
			return strconv.FormatFloat(float64(whole)+float64(rest)/float64(unit.bits), 'f', -1, 64) + unit.name
		}
	}
	return "0bit"
}

// parsePorts reads one port or an inclusive range.
func parsePorts(s string) (PortRange, error) {
	r, err := readPorts(s, "write auto, or ports and ranges like 20000-29999")
	if err == nil && r.First < 1024 {
		return PortRange{}, faultf("use 1024 to 65535", "port %d is reserved for services", r.First)
	}
	return r, err
}

func formatPorts(r PortRange) string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// parseAddr reads an IPv4 address that a host can have.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && strings.Contains(s, "/"):
		host, _, _ := strings.Cut(s, "/")
		return a, faultf("write "+quote(host), "%s has a prefix length, wanted is an address", quote(s))
	case err != nil:
		return a, faultf("write for example 192.0.2.7", "%s is not an IPv4 address", quote(s))
	case !a.Is4():
		return a, faultf("use an IPv4 address", "%s: IPv6 is not supported", a)
	case !usableAddr(a):
		return a, faultf("use the address of a host", "%s cannot be one", a)
	}
	return a, nil
}

// usableAddr excludes 0/8, loopback, multicast and 240/4 (RFC 6890), which no host answers to.
func usableAddr(a netip.Addr) bool {
	first := a.As4()[0]
	return first != 0 && first != 127 && first < 224
}

func formatAddr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// parseBracketed reads a host's address, which stands in brackets only if it is one of IPv6.
func parseBracketed(s string) (a netip.Addr, bracketed bool, err error) {
	inner, opened := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	a, err = parseHost(inner)
	if err == nil && (opened != closed || opened && a.Is4()) {
		err = faultf("write for example 1.1.1.1 or [2620:fe::fe]", "%s is no address", quote(s))
	}
	return a, opened, err
}

// parseHost reads the address of a remote host, of either family.
func parseHost(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Is4In6() {
		return parseAddr(s)
	}
	if a.Zone() != "" || !a.IsGlobalUnicast() {
		return a, faultf("use the address of a host", "%s cannot be one on the Internet", a)
	}
	return a, nil
}
