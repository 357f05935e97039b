package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tapgw/api"
)

// thisHost is the word for the gateway itself, whose address depends on the uplinks.
const thisHost = "self"

func (a *app) pinCommand() *cobra.Command {
	var length time.Duration
	c := &cobra.Command{
		Use:   "pin CLIENT [SITE] UPLINK",
		Short: "Have a client use one uplink, for one site or for all",
		Long: `Have new sessions of a client use one uplink while it is up, and what is best while
it is not. CLIENT is the address of a host, or "` + thisHost + `" for this one. SITE is a domain,
which means all below it too, or an address or prefix; all sites if left out.

Pins come before the rules of the configuration, but for those at its head that
leave sessions untranslated (direct). Sessions that there are stay where they are.
A restart of the daemon forgets it.

Exit status: 10 when there is no such uplink. Needs root or the group tapgw.`,
		Example: "  tapgw pin 192.168.1.20 cable --for 2h\n  tapgw pin " + thisHost + " example.com fibre",
		Args:    cobra.RangeArgs(2, 3),

		ValidArgsFunction: a.pinnedUplink,
		RunE: func(c *cobra.Command, args []string) error {
			last := len(args) - 1
			inside, site, err := pinned(args[:last])
			if err == nil && (length < 0 || length > api.MaxPin) {
				err = fmt.Errorf("--for %s is not between 0 and %s", length, duration(api.MaxPin))
			}
			if err != nil {
				return misuse(c, err)
			}
			if err := a.client().PinHost(c.Context(), inside, site, args[last], length); err != nil {
				return err
			}
			return a.sayPinned(strings.Join(args[:last], " "), args[last], length)
		},
	}
	c.Flags().DurationVar(&length, "for", 0, "so long, as 90m or 2h (default until the daemon ends)")
	return c
}

func (a *app) sayPinned(who, uplink string, length time.Duration) error {
	text, end := who+" uses "+uplink, "end that with"
	if length > 0 {
		text, end = text+" for "+duration(length), "before that"
	}
	_, err := fmt.Fprintln(a.Stdout, wrap(clean(text+"; "+end+": tapgw unpin "+who), columns, "  "))
	return err
}

func (a *app) unpinCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unpin CLIENT [SITE]",
		Short: "Take a pin back",
		Long:  "Take back what \"tapgw pin\" did for a client, or for a client and a site. Needs root\nor the group tapgw.",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			inside, site, err := pinned(args)
			if err != nil {
				return misuse(c, err)
			}
			if err := a.client().Unpin(c.Context(), inside, site); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.Stdout, "%s uses what is best again\n", clean(strings.Join(args, " ")))
			return err
		},
	}
}

func (a *app) pinsCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "pins",
		Short: "List what is pinned to an uplink, in the order in which it counts",
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := a.client().Pins(c.Context())
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(a.Stdout, list)
			}
			return a.printPins(list)
		},
	}, "a JSON list")
}

func (a *app) printPins(list []api.Pin) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(a.Stdout, "nothing is pinned")
		return err
	}
	t := table{columns: []column{{title: "CLIENT"}, {title: "SITE"}, {title: "UPLINK"}, {title: "FOR", right: true, keep: true}}}
	for _, p := range list {
		left := "-"
		if !p.Until.IsZero() {
			left = duration(p.Until.Sub(a.Now()))
		}
		client := thisHost
		if p.Inside.IsValid() {
			client = p.Inside.String()
		}
		t.add(cell{text: client}, cell{text: cmp.Or(p.Site, "all")}, cell{text: p.Uplink}, cell{text: left})
	}
	return t.print(a.Stdout)
}

// pinned reads CLIENT [SITE].
func pinned(args []string) (inside netip.Addr, site string, err error) {
	if args[0] != thisHost {
		if inside, err = netip.ParseAddr(args[0]); err != nil {
			return inside, "", fmt.Errorf("%q is not the address of a client, nor %q for this host", args[0], thisHost)
		}
	}
	if len(args) > 1 {
		site = args[1]
	}
	return inside, site, nil
}

// pinnedUplink completes the last argument of the command pin.
func (a *app) pinnedUplink(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 && len(args) != 2 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.uplinkNames(c, args, begun)
}
