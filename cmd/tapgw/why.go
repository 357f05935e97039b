package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tapgw/api"
)

const whyHelp = `Say where a session to DST would go, and why: which rule, which uplinks with
which measures, and what decides. Nothing is opened. DST is an address or a name;
PORT is 443 if left out, but for icmp.

An address of IPv6 with a port needs brackets: [2001:db8::1]:443.`

func (a *app) whyCommand() *cobra.Command {
	var from, proto string
	c := a.withJSON(&cobra.Command{
		Use:   "why DST[:PORT]",
		Short: "Say by which uplink a session would go, and why",
		Long:  whyHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q, err := a.question(c.Context(), args[0], from, proto)
			if err != nil {
				return misuse(c, err)
			}
			w, err := a.client().Why(c.Context(), q)
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(a.Stdout, w)
			}
			return a.printWhy(w)
		},
	}, "one JSON object")
	c.Flags().StringVar(&from, "from", "", "the client, as ADDRESS or ADDRESS:PORT (default this host)")
	c.Flags().StringVar(&proto, "proto", "tcp", "tcp, udp or icmp")
	return c
}

// portHTTPS is what most sessions go to.
const portHTTPS = 443

// question reads the command line.
func (a *app) question(ctx context.Context, dst, from, proto string) (q api.Question, err error) {
	if proto != "tcp" && proto != "udp" && proto != "icmp" {
		return q, fmt.Errorf("--proto %q is none of tcp, udp, icmp", proto)
	}
	q.Proto = proto
	if from != "" {
		if q.From, err = endpoint(from); err != nil {
			return q, fmt.Errorf("--from %q is no address; give that of the client", from)
		}
	}
	host, port, err := splitPort(dst)
	if err != nil {
		return q, err
	}
	if proto == "icmp" {
		port = 0
	} else {
		port = cmp.Or(port, portHTTPS)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		addr, err = a.resolve(ctx, host, q.From.Addr())
	}
	q.Remote = netip.AddrPortFrom(addr.Unmap(), port)
	return q, err
}

// resolve finds an address of a name, of the client's family if that is known.
func (a *app) resolve(ctx context.Context, name string, client netip.Addr) (netip.Addr, error) {
	list, err := a.Resolve(ctx, name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is no address, and has none as a name: %w", name, err)
	}
	for _, found := range list {
		if found = found.Unmap(); !client.IsValid() || found.Is4() == client.Is4() {
			return found, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%q has no address of the client's family", name)
}

// splitPort takes the port off a host; 0 when there is none.
func splitPort(s string) (host string, port uint16, err error) {
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil || !strings.Contains(s, ":") {
		return strings.Trim(s, "[]"), 0, nil
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no address, nor one with a port", s)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q is no port", text)
	}
	return host, uint16(n), nil
}

// endpoint reads an address, with or without a port.
func endpoint(s string) (netip.AddrPort, error) {
	host, port, err := splitPort(s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, err := netip.ParseAddr(host)
	return netip.AddrPortFrom(addr.Unmap(), port), err
}

func lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsTimeout:
		err = errors.New("no name server answers")
	case errors.As(err, &dns):
		err = errors.New(dns.Err) // the rest repeats the name, and tells the resolver's address
	}
	return list, err
}

func (a *app) printWhy(w api.Why) error {
	var b strings.Builder
	fmt.Fprintln(&b, wrap(clean(whyHead(w)), columns, "  "))
	for i, r := range w.Rules {
		verdict := "matches"
		if !r.Matches {
			verdict = "no: " + r.Fails
		}
		fmt.Fprintln(&b, cut(clean(fmt.Sprintf("rule %d %s: %s", i+1, r.Name, verdict)), columns))
	}
	if w.Rule == "" && len(w.Rules) > 0 {
		fmt.Fprintln(&b, "no rule matches")
	}
	fmt.Fprintln(&b, wrap(clean(whyGroup(w)), columns, "  "))
	if _, err := fmt.Fprint(a.Stdout, b.String()); err != nil {
		return err
	}
	if err := a.printWhyUplinks(w); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.Stdout, wrap(clean(whyEnd(w)), columns, "  "))
	return err
}

func whyHead(w api.Why) string {
	from, to := portless(w.Inside), portless(w.Remote)
	if w.Host {
		from = "this host"
	}
	return w.Proto + " from " + from + " to " + to
}

// portless is an endpoint without a port that is 0.
func portless(e netip.AddrPort) string {
	if e.Port() == 0 {
		return address(e.Addr())
	}
	return e.String()
}

func whyGroup(w api.Why) string {
	text := "group " + w.Group
	if w.AskedFirst != "" {
		text = "group " + w.AskedFirst + " is down, asked instead: " + text
	}
	if w.Scheduler != "" {
		text += ", scheduler " + w.Scheduler + ", kept together by " + w.Stickiness
	}
	return text
}

func (a *app) printWhyUplinks(w api.Why) error {
	t := table{colour: a.colour(), columns: []column{
		{title: "UPLINK"}, {title: "TIER", right: true, keep: true}, {title: "STATE"}, {title: "EXPECTS", right: true, keep: true},
		{title: "LOAD", right: true, keep: true}, {title: "SESSIONS", right: true, keep: true}, {title: "RTT", right: true, keep: true}, {title: ""},
	}}
	for _, u := range w.Uplinks {
		chosen := ""
		if u.Chosen {
			chosen = "<- chosen"
		}
		row := []cell{{text: u.Name}, {text: strconv.Itoa(u.Tier)}, state(u.State), {text: "-"}, {text: "-"}, {text: "-"}, {text: "-"}, {text: chosen}}
		if u.Candidate {
			row[3], row[4] = cell{text: rate(u.ExpectBps)}, cell{text: percent(u.Load)}
			row[5], row[6] = cell{text: count(u.Sessions)}, cell{text: rtt(u.RTTMs)}
		}
		t.add(row...)
	}
	return t.print(a.Stdout)
}

func whyEnd(w api.Why) string {
	text := whyOutcome(w)
	if w.OnUplinkDown != "" {
		text += "; should that be down: " + w.OnUplinkDown
	}
	return text
}

func whyOutcome(w api.Why) string {
	switch w.Outcome {
	case api.OutcomeRefused:
		return "refused: " + w.Reason
	case api.OutcomeSession:
		return "by " + w.Uplink + ", as there is such a session; it is there for: " + w.Reason
	case api.OutcomeDirect, api.OutcomeOwn:
		return "by " + w.Uplink + ", not translated: " + w.Reason
	}
	return "by " + w.Uplink + ": " + w.Reason
}
