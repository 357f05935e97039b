package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tapgw/api"
)

func (a *app) eventsCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "events",
		Short: "Follow what happens, beginning with the present states",
		Long:  "Follow what happens, beginning with the present states, until Ctrl-C or until the\ndaemon stops (exit status 1).",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := context.WithCancelCause(c.Context())
			defer stop(nil)
			err := a.client().Events(ctx, func(e api.Event) {
				if err := a.printEvent(e); err != nil {
					stop(err)
				}
			})
			if c.Context().Err() == nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		},
	}, "one JSON object per line")
}

func (a *app) printEvent(e api.Event) error {
	if a.json {
		return writeJSONLine(a.Stdout, e)
	}
	_, err := fmt.Fprintln(a.Stdout, wrap(clean(eventText(e, a.Now().Location())), columns, "    "))
	return err
}

func eventText(e api.Event, where *time.Location) string {
	text := e.Time.In(where).Format(time.DateTime)
	if e.Uplink != "" {
		text += " " + e.Uplink
	}
	if e.Family == api.FamilyIPv6 {
		text += " IPv6"
	}
	switch e.Kind {
	case api.EventSnapshot:
		text += " is " + e.To
	case api.EventState:
		text += " " + e.From + " -> " + e.To
	default:
		text += " " + e.Kind
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}
