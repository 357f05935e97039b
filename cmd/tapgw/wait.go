package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"tapgw/api"
)

// What can be waited for beside an uplink.
const (
	forOnline  = "online"
	forPartial = "partial"
)

func (a *app) waitCommand() *cobra.Command {
	var what string
	var limit time.Duration
	c := &cobra.Command{
		Use:   "wait",
		Short: "Wait until the Internet, or one uplink, can be used",
		Long: `Wait until all uplinks can be used (online), some can (partial), or that of a name
can. Before the daemon runs it is waited for, too.

Exit status: 0 so it is; 3 not in time; 8 no daemon ran in that time.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit <= 0 || what == "" {
				return misuse(c, errors.New("--for and --timeout must say something"))
			}
			ctx, cancel := context.WithTimeout(c.Context(), limit)
			defer cancel()
			s, err := a.await(ctx, what)
			if err == nil {
				_, err = fmt.Fprintln(a.Stdout, "Internet:", verdict(s))
			}
			return err
		},
	}
	c.Flags().StringVar(&what, "for", forOnline, forOnline+", "+forPartial+" or the name of an uplink")
	c.Flags().DurationVar(&limit, "timeout", 30*time.Second, "how long, as 90s or 5m")
	return c
}

// await returns the state in which it is as it should be.
func (a *app) await(ctx context.Context, what string) (api.Status, error) {
	for ctx.Err() == nil {
		s, err := a.awaitEvent(ctx, what)
		switch {
		case reached(s, what):
			return s, nil
		case errors.Is(err, api.ErrNoDaemon):
			if failed := awaitFile(ctx, a.client().Socket, a.answers(ctx)); failed != nil {
				return s, failed
			}
			if ctx.Err() != nil {
				return s, err
			}
		case err != nil && !errors.Is(err, api.ErrStreamEnded):
			return s, err
		}
	}
	return api.Status{}, statusError{fmt.Errorf("%s was not reached in time, see `tapgw status`", clean(what)), exitTimeout}
}

// answers reports whether a daemon does.
func (a *app) answers(ctx context.Context) func() bool {
	return func() bool {
		_, err := a.client().Version(ctx)
		return !errors.Is(err, api.ErrNoDaemon)
	}
}

// awaitEvent follows the events until it is so, and looks at the state after each.
func (a *app) awaitEvent(ctx context.Context, what string) (s api.Status, err error) {
	following, stop := context.WithCancel(ctx)
	defer stop()
	err = a.client().Events(following, func(api.Event) {
		if now, failed := a.client().Status(following); failed == nil {
			if s = now; reached(s, what) {
				stop()
			}
		}
	})
	return s, err
}

// reached reports whether a state is what is waited for.
func reached(s api.Status, what string) bool {
	switch n := s.Usable(); what {
	case forOnline:
		return n > 0 && n == len(s.Uplinks)
	case forPartial:
		return n > 0
	}
	for i := range s.Uplinks {
		if u := &s.Uplinks[i]; u.Name == what {
			return u.Usable()
		}
	}
	return false
}
