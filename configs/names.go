package configs

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// parseInterface reads the name of a network device by the kernel's rules, less what cannot be shown.
func parseInterface(s string) (string, error) {
	unfit := func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r > '~' }
	switch {
	case len(s) > maxIfName:
		return "", faultf("use at most 15 characters", "%s is too long for a network interface", quote(s))
	case s == "." || s == ".." || s == "lo" || strings.ContainsFunc(s, unfit):
		return "", faultf("write a name that `ip link` shows", "%s cannot be an uplink's interface", quote(s))
	}
	return s, nil
}

func parseTAPName(s string) (string, error) {
	if len(s) > maxTAPName {
		return "", faultf("use at most 14 characters", "%s is too long: a second device gets one more", quote(s))
	}
	if strings.Contains(s, "%") {
		return "", faultf("write the whole name", "%s has a %%, which the kernel replaces by a number", quote(s))
	}
	if s == "all" || s == "default" {
		return "", faultf("choose another name", "%s has a meaning of its own in /proc/sys/net", quote(s))
	}
	return parseInterface(s)
}

// parseTAPAddress reads the host's address on the TAP; the subnet needs room for the gateway beside it.
func parseTAPAddress(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || !p.Addr().Is4():
		return p, faultf("write for example 198.18.73.1/30", "%s is not an IPv4 address with a prefix length", quote(s))
	case p.Bits() < 8 || p.Bits() > 30:
		return p, faultf("use /8 to /30", "/%d has no room for a gateway, or too much", p.Bits())
	case p.Addr() == p.Masked().Addr() || p.Addr() == lastAddr(p):
		return p, faultf("use an address in between", "%s is the network or broadcast address of its subnet", p.Addr())
	case !usableAddr(p.Addr()):
		return p, faultf("use a private address", "%s cannot be a host's", p.Addr())
	}
	return p, nil
}

// parseName reads a name that people type in commands.
func parseName(s string) (string, error) {
	unfit := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	if len(s) > 32 || strings.HasPrefix(s, "-") || strings.ContainsFunc(s, unfit) {
		return "", faultf("use up to 32 letters, digits, dots, dashes and underscores", "%s is not a name", quote(s))
	}
	return s, nil
}

func parseScheduler(s string) (string, error) { return oneOf(s, "a scheduler", schedulers) }

func parseDatapathMode(s string) (DatapathMode, error) {
	return oneOf(s, "a way to choose the datapath", DatapathModes())
}

func parseLANShortcut(s string) (LANShortcut, error) {
	return oneOf(s, "a setting of the shortcut", []LANShortcut{LANShortcutAuto, LANShortcutOff})
}

// filters are the values of a Filter.
var filters = []Filter{FilterNone, FilterAddress, FilterPort}

func parseFilter(s string) (Filter, error) { return oneOf(s, "a way to filter", filters) }

// oneOf reads one of a few words; kind says what they are.
func oneOf[T ~string](s, kind string, words []T) (T, error) {
	if slices.Contains(words, T(s)) {
		return T(s), nil
	}
	known := make([]string, len(words))
	for i, w := range words {
		known[i] = string(w)
	}
	all := strings.Join(known, ", ")
	fix := "use " + all
	if near := nearest(s, known); near != "" {
		fix = "did you mean " + near + "? (" + all + ")"
	}
	return "", faultf(fix, "%s is not %s", quote(s), kind)
}

func parseSocket(s string) (string, error) {
	if !strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") {
		return "", faultf("write for example /run/tapgw/tapgw.sock", "%s is not an absolute path of a socket", quote(s))
	}
	if len(s) > maxSocket {
		return "", faultf("use at most 107 bytes", "%s is too long for a unix socket", quote(s))
	}
	return s, nil
}

// parseMetrics reads a loopback address: metrics have no authentication, so they must not leave the machine.
func parseMetrics(s string) (netip.AddrPort, error) {
	const example = "127.0.0.1:9417"
	a, err := parseAddrPort(s, example)
	if err == nil && !a.Addr().Unmap().IsLoopback() {
		return netip.AddrPort{}, faultf(writeExample+example, "%s is not a loopback address, and metrics have no authentication", a.Addr())
	}
	return a, err
}

const writeExample = "write for example "

// parseAddrPort reads an address to listen on.
func parseAddrPort(s, example string) (netip.AddrPort, error) {
	bad := faultf(writeExample+example, "%s is not address:port", quote(s))
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, bad
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	a, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil || a.Port() == 0 || a.Addr().Zone() != "" {
		return netip.AddrPort{}, bad
	}
	return a, nil
}

func formatAddrPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
