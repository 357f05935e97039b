package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"tapgw/api"
)

func (a *app) uplinksCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "uplinks",
		Short: "List the uplinks with their addresses and health",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := a.client().Status(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(a.Stdout, s.Uplinks)
			}
			return a.printUplinks(s.Uplinks)
		},
	}, "a JSON list, as in the status")
}

func (a *app) printUplinks(list []api.Uplink) error {
	t := table{colour: a.colour(), columns: []column{
		{title: "UPLINK"}, {title: "INTERFACE"}, {title: "STATE"}, {title: "ADDRESS"}, {title: "GATEWAY"},
		{title: "RTT", right: true, keep: true}, {title: "LOSS", right: true, keep: true}, {title: "SPEED", right: true},
	}}
	for _, u := range list {
		t.add(cell{text: u.Name}, cell{text: u.Interface}, state(u.State), cell{text: addresses(u.Addresses)},
			cell{text: address(u.Gateway)}, cell{text: rtt(u.RTTMs)}, cell{text: percent(u.Loss)}, cell{text: speed(u.Capacity)})
		if v := u.IPv6; v.State != "" {
			t.add(cell{}, cell{}, state(v.State), cell{text: addresses(v.Addresses)}, cell{text: address(v.Gateway)},
				cell{text: rtt(v.RTTMs)}, cell{text: percent(v.Loss)}, cell{})
		}
	}
	return t.print(a.Stdout)
}

func (a *app) sessionsCommand() *cobra.Command {
	var f api.Filter
	var inside string
	var why bool
	c := a.withJSON(&cobra.Command{
		Use:   "sessions",
		Short: "List the sessions, those that moved most bytes first",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if inside != "" {
				if f.Inside, err = netip.ParseAddr(inside); err != nil {
					return misuse(c, fmt.Errorf("--inside %q is not an address", inside))
				}
			}
			if f.Limit < 0 {
				return misuse(c, fmt.Errorf("--limit %d is negative", f.Limit))
			}
			list, err := a.client().Sessions(c.Context(), f)
			if err != nil {
				return err
			}
			slices.SortFunc(list, api.ByBytes)
			if a.json {
				return writeJSON(a.Stdout, list)
			}
			if why {
				return a.printReasons(list)
			}
			return a.printSessions(list)
		},
	}, "a JSON list")
	c.Flags().BoolVar(&why, "why", false, "show the rule and the reason for the uplink instead of state and bytes")
	c.Flags().StringVar(&f.Uplink, "uplink", "", "only on the uplink of this name")
	c.Flags().StringVar(&f.Proto, "proto", "", "only tcp, udp, icmp or another, as gre or 253")
	c.Flags().StringVar(&inside, "inside", "", "only from this inside address")
	c.Flags().IntVar(&f.Limit, "limit", 0, "at most so many of them (0: all)")
	return c
}

func (a *app) printSessions(list []api.Session) error {
	t := table{columns: []column{
		{title: "PROTO"}, {title: "INSIDE"}, {title: "REMOTE"}, {title: "UPLINK"}, {title: "STATE"},
		{title: "IDLE", right: true, keep: true}, {title: "BYTES", right: true, keep: true},
	}}
	for _, s := range list {
		t.add(cell{text: s.Proto}, cell{text: s.Inside.String()}, cell{text: s.Remote.String()}, cell{text: s.Uplink},
			cell{text: s.State}, cell{text: seconds(s.IdleS)}, cell{text: amount(s.BytesIn + s.BytesOut)})
	}
	return a.printCounted(&t, len(list))
}

// printReasons lists the sessions with why each uses its uplink.
func (a *app) printReasons(list []api.Session) error {
	t := table{columns: []column{
		{title: "PROTO"}, {title: "INSIDE"}, {title: "REMOTE"}, {title: "UPLINK"}, {title: "RULE"}, {title: "REASON"},
	}}
	for _, s := range list {
		t.add(cell{text: s.Proto}, cell{text: s.Inside.String()}, cell{text: s.Remote.String()}, cell{text: s.Uplink},
			cell{text: cmp.Or(s.Rule, "-")}, cell{text: s.Reason})
	}
	return a.printCounted(&t, len(list))
}

func (a *app) printCounted(t *table, sessions int) error {
	if err := t.print(a.Stdout); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.Stdout, "sessions: %d\n", sessions)
	return err
}
