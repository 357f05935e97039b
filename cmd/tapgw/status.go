package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tapgw/api"
	"tapgw/uplinks"
)

func (a *app) statusCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "status",
		Short: "Is everything all right, and if not, what to do",
		Long: `Is everything all right, and if not, what to do.

Exit status: 0 all uplinks are usable; 4 some; 5 none; 8 no daemon runs.`,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.client().Status(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				err = writeJSON(a.Stdout, s)
			} else {
				err = a.printStatus(s)
			}
			if err != nil {
				return err
			}
			return statusResult(s)
		},
	}, "one JSON document")
}

func statusResult(s api.Status) error {
	switch n := s.Usable(); {
	case n == 0:
		return exitError(exitNoUplink)
	case n < len(s.Uplinks):
		return exitError(exitSomeUplinks)
	}
	return nil
}

func (a *app) printStatus(s api.Status) error {
	if err := a.printVerdict(s); err != nil {
		return err
	}
	if len(s.Uplinks) == 0 {
		_, err := fmt.Fprintln(a.Stdout, wrap("! No uplink found: connect a network that has a default route (see \"ip route\"), "+
			"or name the uplinks in the configuration (tapgw config init).", columns, "  "))
		return err
	}
	t := table{colour: a.colour(), columns: []column{
		{title: "UPLINK"}, {title: "STATE"}, {title: "FOR", right: true, keep: true}, {title: "SESS", right: true, keep: true},
		{title: "DOWN", right: true, keep: true}, {title: "UP", right: true, keep: true},
		{title: "LOAD", keep: true}, {title: "RTT", right: true, keep: true},
	}}
	now := a.Now()
	for _, u := range s.Uplinks {
		if u.IPv6Only() {
			u.State, u.Since, u.RTTMs = u.IPv6.State, u.IPv6.Since, u.IPv6.RTTMs
		}
		t.add(cell{text: u.Name}, state(u.State), cell{text: since(now, u.Since)}, cell{text: count(u.Sessions)},
			cell{text: rate(u.RxBps)}, cell{text: rate(u.TxBps)}, cell{text: bar(u.Load)}, cell{text: rtt(u.RTTMs)})
	}
	if err := t.print(a.Stdout); err != nil {
		return err
	}
	if err := printCommands(a.Stdout, now, s); err != nil {
		return err
	}
	if len(s.Uplinks) == 1 {
		if _, err := fmt.Fprintln(a.Stdout, wrap(api.OneUplink, columns, "  ")); err != nil {
			return err
		}
	}
	if err := printSuspects(a.Stdout, s); err != nil {
		return err
	}
	if err := printStandIns(a.Stdout, s); err != nil {
		return err
	}
	if err := printBypasses(a.Stdout, s); err != nil {
		return err
	}
	if err := a.printCaps(s); err != nil {
		return err
	}
	return printProblems(a.Stdout, now, s)
}

// verdict says how much of the Internet can be reached.
func verdict(s api.Status) string {
	return fmt.Sprintf("%s (%d of %d uplinks usable)", s.Verdict(), s.Usable(), len(s.Uplinks))
}

func (a *app) printVerdict(s api.Status) error {
	var down, up float64
	for _, u := range s.Uplinks {
		down, up = down+u.RxBps, up+u.TxBps
	}
	_, err := fmt.Fprintf(a.Stdout, "Internet: %s\n%s sessions, down %s, up %s; running for %s\n%s\n",
		verdict(s), count(s.Sessions), rate(down), rate(up), seconds(s.UptimeS), datapath(s))
	return err
}

// datapathLines is how many lines of a status the datapath may take; the rest of a long reason is in the JSON.
const datapathLines = 2

// datapath says what carries known sessions, and why in no faster way.
func datapath(s api.Status) string {
	text, reason := "Datapath "+s.Datapath, s.DatapathReason
	switch {
	case s.Datapath == api.DatapathKernel && s.LANShortcut && s.LANShortcutIPv6Reason != "":
		text, reason = text+", LAN shortcut on, of IPv6 off", s.LANShortcutIPv6Reason
	case s.Datapath == api.DatapathKernel && s.LANShortcut:
		text, reason = text+", LAN shortcut on", ""
	case s.Datapath == api.DatapathKernel:
		text, reason = text+", LAN shortcut off", s.LANShortcutReason
	}
	if reason != "" {
		text += ": " + reason
	}
	return clip(wrap(clean(text), columns, "  "), datapathLines)
}

// bypassLines is how many lines of a status may list what known sessions bypass; the rest is in the JSON.
const bypassLines = 3

// printBypasses says what known sessions bypass, and what helps.
func printBypasses(w io.Writer, s api.Status) error {
	if len(s.DatapathBypasses) == 0 {
		return nil
	}
	text := "! Known sessions bypass " + strings.Join(s.DatapathBypasses, "; ")
	advice := "Filter in nftables' forward and input, shape at the egress of the LAN or the uplinks."
	if s.Datapath == api.DatapathKernel {
		advice += " Or set datapath.mode to userspace, which is no help at the ingress of uplinks."
	}
	_, err := fmt.Fprintf(w, "%s\n  %s\n", clip(wrap(clean(text), columns, "  "), bypassLines), wrap(advice, columns-2, "  "))
	return err
}

// printProblems says of every uplink that is not simply up what is wrong and what helps.
func printProblems(w io.Writer, now time.Time, s api.Status) error {
	for _, u := range s.Uplinks {
		var err error
		switch v := u.IPv6; {
		case u.IPv6Only() && u.State == api.StatePortal:
			err = printProblem(w, u.Name+" to IPv4", u.State, since(now, u.Since), u.Reason, signIn(u.Name))
		case u.IPv6Only():
			err = printProblem(w, u.Name+" to IPv4", u.State, since(now, u.Since), u.Reason, "IPv6 goes on by it.")
		case u.State != api.StateUp:
			err = printProblem(w, u.Name, u.State, since(now, u.Since), u.Reason, advice(u))
		case v.State == api.StatePortal:
			err = printProblem(w, u.Name+" to IPv6", v.State, since(now, v.Since), v.Reason, signIn(u.Name))
		case v.State != api.StateUp && v.State != "":
			err = printProblem(w, u.Name+" to IPv6", v.State, since(now, v.Since), v.Reason, "IPv4 goes on by it.")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// printProblem gives the advice a line of its own, so that a command in it can be copied.
func printProblem(w io.Writer, name, state, since, reason, advice string) error {
	text := fmt.Sprintf("! %s: %s for %s", name, state, since)
	if reason != "" {
		text += " (" + reason + ")"
	}
	_, err := fmt.Fprintf(w, "%s\n  %s\n", wrap(clean(text), columns, "  "), cut(clean(advice), columns-2))
	return err
}

func advice(u api.Uplink) string {
	switch u.State {
	case api.StateProbing:
		return "Wait a few seconds for the first probes."
	case api.StateDegraded:
		return "Still used; to spare it: tapgw uplink disable " + u.Name
	case api.StatePortal:
		return signIn(u.Name)
	case api.StateDisabled:
		return "To use it again: tapgw uplink enable " + u.Name
	}
	if cure := cures[u.Reason]; cure != "" {
		return fmt.Sprintf(cure, u.Interface)
	}
	return "Check cable, modem or Wi-Fi of " + u.Interface + "; it is used again once it answers."
}

// cures are what helps where this host is at fault.
var cures = map[string]string{
	uplinks.LacksInterface: "Connect %s, or mend its name in the configuration (see: ip link).",
	uplinks.LacksDevice:    "Connect %s again.",
	uplinks.LacksPower:     "To switch it on: sudo ip link set %s up",
	uplinks.LacksAddress:   "It waits for an address; see what does DHCP on %s.",
	uplinks.LacksGateway:   "Give %s a default route, or name its gateway in the configuration.",
}

func signIn(uplink string) string { return "Sign in by it: tapgw portal " + uplink }

// state is the cell of a state word, with the colour that repeats it.
func state(s string) cell {
	colours := map[string]string{
		api.StateUp: "32", api.StateDegraded: "33", api.StateProbing: "33", api.StatePortal: "33", api.StateDown: "31",
	}
	return cell{text: s, colour: colours[s]}
}
