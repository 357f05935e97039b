package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tapgw/api"
	"tapgw/configs"
)

func (a *app) usageCommand() *cobra.Command {
	var set string
	c := a.withJSON(&cobra.Command{
		Use:   "usage [UPLINK]",
		Short: "Show how much data the uplinks have used of what they may, or correct it",
		Long: `Show how much data the uplinks have used since their billing period began, and
how much they may. All bytes of an uplink's interface count, in both directions.

Where the ISP counts otherwise, say what it does: tapgw usage lte --set 3.2GB

Exit status: 10 when there is no such uplink. --set needs root or the group tapgw.`,
		Args: cobra.MaximumNArgs(1),

		ValidArgsFunction: a.oneUplink,
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("set") {
				return a.showUsage(c, args)
			}
			bytes, err := configs.ParseSize(set)
			switch {
			case err != nil:
				return misuse(c, fmt.Errorf("--set: %w", err))
			case len(args) == 0:
				return misuse(c, fmt.Errorf("--set needs the name of an uplink"))
			}
			if err := a.client().SetUsage(c.Context(), args[0], bytes); err != nil {
				return err
			}
			return a.showUsage(c, args)
		},
	}, "a JSON list")
	c.Flags().StringVar(&set, "set", "", "what the uplink has used in this period, as 3.2GB")
	return c
}

// showUsage prints what all uplinks have used, or the named one.
func (a *app) showUsage(c *cobra.Command, names []string) error {
	list, err := a.client().Usage(c.Context())
	if err != nil {
		return err
	}
	if len(names) > 0 {
		list = slices.DeleteFunc(list, func(u api.UplinkUsage) bool { return u.Uplink != names[0] })
		if len(list) == 0 {
			return fmt.Errorf("%w: %q, see `tapgw uplinks`", api.ErrUnknownUplink, clean(names[0]))
		}
	}
	if a.json {
		return writeJSON(a.Stdout, list)
	}
	return a.printUsage(list)
}

func (a *app) printUsage(list []api.UplinkUsage) error {
	t := table{colour: a.colour(), columns: []column{
		{title: "UPLINK"}, {title: "USED", right: true, keep: true}, {title: "CAP", right: true, keep: true},
		{title: "SHARE", right: true, keep: true}, {title: "PERIOD ENDS", keep: true}, {title: "SESS", right: true, keep: true}, {title: "STATE"},
	}}
	for _, u := range list {
		limit, share := "-", "-"
		if u.CapBytes > 0 {
			limit, share = amount(u.CapBytes), percent(float64(u.UsedBytes)/float64(u.CapBytes))
		}
		t.add(cell{text: u.Uplink}, cell{text: amount(u.UsedBytes)}, cell{text: limit}, cell{text: share},
			cell{text: a.date(u.ResetsAt)}, cell{text: count(u.Sessions)}, usageState(u))
	}
	return t.print(a.Stdout)
}

// date is a day, "-" when t is not set.
func (a *app) date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(a.Now().Location()).Format(time.DateOnly)
}

// usageState is the cell of how much of its cap an uplink has used.
func usageState(u api.UplinkUsage) cell {
	colours := map[string]string{api.UsageWarning: "33", api.UsageAllowed: "33", api.UsageStopped: "31"}
	switch {
	case !u.Metered:
		return cell{text: "not metered"}
	case u.CapBytes == 0:
		return cell{text: "no cap"}
	}
	return cell{text: u.State, colour: colours[u.State]}
}

// printCaps says of which uplinks little data are left. Those that have none are among the problems.
func (a *app) printCaps(s api.Status) error {
	for _, u := range s.Uplinks {
		if u.Usage.State != api.UsageWarning && u.Usage.State != api.UsageAllowed {
			continue
		}
		used := float64(u.Usage.UsedBytes) / float64(u.Usage.CapBytes)
		text := fmt.Sprintf("! %s: %s of its data used (%s of %s, until %s)", u.Name, percent(used),
			amount(u.Usage.UsedBytes), amount(u.Usage.CapBytes), a.date(u.Usage.ResetsAt))
		advice := "If the ISP counts otherwise: tapgw usage " + u.Name + " --set 3.2GB"
		if _, err := fmt.Fprintf(a.Stdout, "%s\n  %s\n", wrap(clean(text), columns, "  "), cut(clean(advice), columns-2)); err != nil {
			return err
		}
	}
	return nil
}
