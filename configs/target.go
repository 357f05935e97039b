package configs

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	portDNS   = 53
	portHTTP  = 80
	noContent = "204" // what a page answers that is there to find portals
	gateway   = "gateway"
	maxText   = 200 // characters of a path, and of what is expected
	maxName   = 253

	targetExamples = "icmp://1.1.1.1, tcp://9.9.9.9:443, dns://1.1.1.1/example.org, http://example.org/generate_204, arp://gateway or nd://gateway"
)

// parseTarget reads icmp://A, tcp://A:PORT, dns://A[:PORT]/NAME[?answer=A], http://HOST[:PORT]/PATH[?expect=WHAT], arp://gateway,
// nd://gateway or a bare address.
func parseTarget(s string) (Target, error) {
	method, rest, found := strings.Cut(s, "://")
	if !found {
		method, rest = ICMP, s
	}
	switch method {
	case ICMP:
		a, _, err := parseBracketed(rest)
		return Target{Method: ICMP, Addr: a}, err
	case TCP:
		a, port, err := parseServer(rest, 0, "tcp://9.9.9.9:443", "tcp://[2620:fe::fe]:443")
		return Target{Method: TCP, Addr: a, Port: port}, err
	case DNS:
		return parseDNSTarget(rest)
	case HTTP:
		return parseHTTPTarget(rest)
	case ARP, ND:
		if rest == gateway {
			return Target{Method: method}, nil
		}
		return Target{}, faultf("write "+method+"://gateway", "%s: %s reaches only the uplink's own gateway", quote(s), strings.ToUpper(method))
	}
	return Target{}, faultf("use "+targetExamples, "%s is no way to probe", quote(method+"://"))
}

// parseServer reads A:PORT, or A alone where a port is usual.
func parseServer(s string, usual uint16, example, example6 string) (netip.Addr, uint16, error) {
	host, port := s, ""
	i := strings.LastIndexByte(s, ':')
	if i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
	}
	a, bracketed, err := parseBracketed(host)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	if a.Is6() && !bracketed {
		return netip.Addr{}, 0, faultf("write for example "+example6, "%s does not say which part is the port", quote(s))
	}
	if host == s && usual != 0 {
		return a, usual, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.Addr{}, 0, faultf("write for example "+example, "%s is not a port", quote(port))
	}
	return a, uint16(n), nil
}

func parseDNSTarget(s string) (Target, error) {
	const example = "dns://1.1.1.1/one.one.one.one?answer=1.1.1.1"
	server, rest, _ := strings.Cut(s, "/")
	a, port, err := parseServer(server, portDNS, example, "dns://[2620:fe::fe]/dns.quad9.net")
	if err != nil {
		return Target{}, err
	}
	name, answer, wanted := strings.Cut(rest, "?answer=")
	if !isHostName(name) {
		return Target{}, faultf("write for example "+example, "%s is no name to ask for", quote(name))
	}
	t := Target{Method: DNS, Addr: a, Port: port, Name: name}
	if wanted {
		t.Answer, _, err = parseBracketed(answer)
	}
	return t, err
}

func parseHTTPTarget(s string) (Target, error) {
	const example = "http://example.org/generate_204, or http://example.org/page?expect=success"
	server, rest, _ := strings.Cut(s, "/")
	t := Target{Method: HTTP, Port: portHTTP, Expect: noContent}
	host, port, given := strings.Cut(server, ":")
	if isHostName(host) && strings.ContainsFunc(host, isLetter) {
		t.Name = host
		if n, err := strconv.ParseUint(port, 10, 16); given && (err != nil || n == 0) {
			return Target{}, faultf("write for example "+example, "%s is not a port", quote(port))
		} else if given {
			t.Port = uint16(n)
		}
	} else {
		var err error
		if t.Addr, t.Port, err = parseServer(server, portHTTP, example, "http://[2001:db8::1]/generate_204"); err != nil {
			return Target{}, err
		}
	}
	path, expect, wanted := strings.Cut("/"+rest, "?expect=")
	if t.Path = path; wanted {
		t.Expect = expect
	}
	if t.Expect == "" || len(path) > maxText || len(t.Expect) > maxText || strings.ContainsFunc(path+t.Expect, notPrintable) || strings.Contains(path, "#") {
		return Target{}, faultf("write for example "+example, "%s is no page, or says not what to expect", quote(s))
	}
	return t, nil
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

// isHostName accepts names of hosts (RFC 1123 §2.1), and _ in them.
func isHostName(s string) bool {
	odd := func(r rune) bool { return !isLetter(r) && (r < '0' || r > '9') && r != '-' && r != '_' }
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, odd) {
			return false
		}
	}
	return len(s) <= maxName
}

// String is the target as the file has it.
func (t Target) String() string {
	text := t.Method + "://" + t.server()
	switch {
	case t.Method == DNS && t.Answer.IsValid():
		return text + "/" + t.Name + "?answer=" + t.Answer.String()
	case t.Method == DNS:
		return text + "/" + t.Name
	case t.Method == HTTP && t.Expect == noContent:
		return text + t.Path
	case t.Method == HTTP:
		return text + t.Path + "?expect=" + t.Expect
	}
	return text
}

// server is whom a target asks.
func (t Target) server() string {
	switch {
	case t.Method == ARP, t.Method == ND:
		return gateway
	case t.Method == HTTP && t.Name != "" && t.Port == portHTTP:
		return t.Name
	case t.Method == HTTP && t.Name != "":
		return t.Name + ":" + strconv.Itoa(int(t.Port))
	case t.Method == DNS && t.Port == portDNS && t.Addr.Is6():
		return "[" + t.Addr.String() + "]"
	case t.Method == ICMP, t.Method == DNS && t.Port == portDNS:
		return t.Addr.String()
	}
	return netip.AddrPortFrom(t.Addr, t.Port).String()
}

// serves reports whether a target is asked over a family.
func (t Target) serves(ipv6 bool) bool {
	switch {
	case t.Method == ND:
		return ipv6
	case t.Method == HTTP && t.Name != "":
		return true
	}
	return t.Addr.Is6() == ipv6
}

// parsePercent reads a share below 100 %, as 20%, or off.
func parsePercent(s string) (float64, error) {
	if s == "off" {
		return 0, nil
	}
	number, marked := strings.CutSuffix(s, "%")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !marked || !(n >= 1 && n <= 90) {
		return 0, faultf("use 1% to 90%, or off", "%s is no share", quote(s))
	}
	return n / 100, nil
}

func formatPercent(share float64) string {
	if share == 0 {
		return "off"
	}
	return strconv.FormatFloat(share*100, 'g', 6, 64) + "%"
}

// lastingOrOff reads a duration, or off.
func lastingOrOff(low, high time.Duration) func(string) (time.Duration, error) {
	bounded := lasting(low, high)
	return func(s string) (time.Duration, error) {
		if s == "off" {
			return 0, nil
		}
		return bounded(s)
	}
}

func formatOrOff(d time.Duration) string {
	if d == 0 {
		return "off"
	}
	return formatDuration(d)
}
