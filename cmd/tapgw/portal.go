package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"tapgw/api"
	"tapgw/internal/portal"
)

const portalHelp = `Open the page where an uplink wants somebody to sign in, as those of hotels and
trains do. Other traffic goes on by the other uplinks; so this is an HTTP proxy
on this host whose connections and names go by that uplink alone, and says how
to open the page by it. It ends when the uplink is up, or with Ctrl-C.

UPLINK may be left out where only one has such a page.

Exit status: 0 it is up, or has no such page; 10 when there is no such uplink.`

func (a *app) portalCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "portal [UPLINK]",
		Short: "Sign in at the page that keeps an uplink from being used",
		Long:  portalHelp,
		Args:  cobra.MaximumNArgs(1),

		ValidArgsFunction: a.oneUplink,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.client().Status(c.Context())
			if err != nil {
				return err
			}
			if len(args) > 0 {
				return a.signInBy(c.Context(), s, args[0])
			}
			names := signIns(s)
			switch len(names) {
			case 0:
				return a.say("No uplink waits for somebody to sign in.\n")
			case 1:
				return a.signInBy(c.Context(), s, names[0])
			}
			return misuse(c, fmt.Errorf("several uplinks wait for somebody to sign in, name one: %s", clean(strings.Join(names, ", "))))
		},
	}, "one line of JSON once the proxy is there")
}

// say tells people how far it is.
func (a *app) say(format string, args ...any) error {
	if a.json {
		return nil
	}
	_, err := fmt.Fprintf(a.Stdout, format, args...)
	return err
}

// signIns are the names of the uplinks with a portal.
func signIns(s api.Status) (names []string) {
	for _, u := range s.Uplinks {
		if u.State == api.StatePortal || u.IPv6.State == api.StatePortal {
			names = append(names, u.Name)
		}
	}
	return names
}

// Outlet is one family of an uplink as the proxy uses it.
type Outlet struct {
	Interface       string
	Source, Gateway netip.Addr // Gateway is invalid on a point-to-point link
}

// gate is an outlet with a portal.
type gate struct {
	Outlet
	state, url string
}

// gateOf is the family of an uplink that has a portal; of IPv4, if neither has.
func gateOf(u api.Uplink) gate {
	source := func(list []netip.Addr) (a netip.Addr) {
		if len(list) > 0 {
			a = list[0]
		}
		return a
	}
	if v := u.IPv6; v.State == api.StatePortal && u.State != api.StatePortal {
		return gate{Outlet{u.Interface, source(v.Addresses), v.Gateway}, v.State, v.PortalURL}
	}
	return gate{Outlet{u.Interface, source(u.Addresses), u.Gateway}, u.State, u.PortalURL}
}

// gateIn is that of the uplink called name.
func gateIn(s api.Status, name string) (gate, error) {
	u, err := uplinkIn(s, name)
	return gateOf(u), err
}

// uplinkIn is the uplink called name.
func uplinkIn(s api.Status, name string) (api.Uplink, error) {
	for _, u := range s.Uplinks {
		if u.Name == name {
			return u, nil
		}
	}
	return api.Uplink{}, fmt.Errorf("%w: %q, see `tapgw uplinks`", api.ErrUnknownUplink, clean(name))
}

// signInBy runs the proxy until the uplink has no portal any more.
func (a *app) signInBy(ctx context.Context, s api.Status, name string) error {
	g, err := gateIn(s, name)
	if err != nil {
		return err
	}
	if g.state != api.StatePortal {
		return a.say("%s is %s: it has no page to sign in.\n", clean(name), clean(g.state))
	}
	way, err := a.Way(ctx, g.Outlet)
	if err != nil {
		return err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the browser: %w", err)
	}
	ended, stop := context.WithCancelCause(ctx)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := portal.Serve(ended, l, way); err != nil {
			stop(err)
		}
	}()
	defer func() { stop(nil); <-served }()
	if err := a.printGate(name, g.url, l.Addr().String()); err != nil {
		return err
	}
	return a.awaitSignIn(ctx, ended, stop, name, g)
}

// printGate says how to open the page. The commands are whole, however long, so that they can be copied.
func (a *app) printGate(name, url, proxy string) error {
	if a.json {
		return writeJSONLine(a.Stdout, portal.Gate{Uplink: name, URL: url, Proxy: proxy})
	}
	name, shown := clean(name), clean(url)
	quoted := "'" + strings.ReplaceAll(shown, "'", "%27") + "'" // the network chose it, and a shell will read it
	var b strings.Builder
	fmt.Fprintf(&b, "%s wants you to sign in at %s\n", name, shown)
	fmt.Fprintln(&b, wrap("Open that page with "+proxy+" as the browser's proxy for HTTP and HTTPS, which goes by "+name+" alone:", columns, "  "))
	if browser := a.Browser(); browser != "" {
		fmt.Fprintf(&b, "  %s --user-data-dir=\"$(mktemp -d)\" --proxy-server=http://%s %s\n", browser, proxy, quoted)
	}
	fmt.Fprintf(&b, "  curl --proxy http://%s %s\n", proxy, quoted)
	fmt.Fprintf(&b, "Waiting until %s is up; Ctrl-C ends the proxy.\n", name)
	_, err := fmt.Fprint(a.Stdout, b.String())
	return err
}

// errSignedIn ends the wait.
var errSignedIn = errors.New("signed in")

// awaitSignIn follows the uplink until it is up, ended ends, or nobody can sign in any more. It ends ended.
func (a *app) awaitSignIn(ctx, ended context.Context, stop context.CancelCauseFunc, name string, g gate) error {
	err := a.client().Events(ended, func(api.Event) { // of any uplink: this one may be gone before the first
		if err := a.progress(ended, name, g); err != nil {
			stop(err)
		}
	})
	if ended.Err() != nil {
		err = context.Cause(ended)
	}
	switch {
	case errors.Is(err, errSignedIn):
		err = a.say("%s is up.\n", clean(name))
	case ctx.Err() != nil:
		err = a.say("The proxy has ended, nobody has signed in by %s.\n", clean(name))
		err = errors.Join(err, exitError(exitFailure))
	}
	return err
}

// progress is nil as long as somebody can sign in by g.
func (a *app) progress(ctx context.Context, name string, g gate) error {
	s, err := a.client().Status(ctx)
	if err != nil {
		return err
	}
	for _, u := range s.Uplinks {
		if u.Name != name {
			continue
		}
		state, addresses := u.State, u.Addresses
		if g.Source.Is6() {
			state, addresses = u.IPv6.State, u.IPv6.Addresses
		}
		switch {
		case state == api.StateUp, state == api.StateDegraded:
			return errSignedIn
		case state == api.StateDisabled:
			return fmt.Errorf("%s is disabled; to use it again: tapgw uplink enable %s", clean(name), clean(name))
		case state == api.StatePortal && len(addresses) > 0 && addresses[0] != g.Source:
			return fmt.Errorf("the address of %s has changed; run \"tapgw portal %s\" again", clean(name), clean(name))
		}
		return nil
	}
	_, err = gateIn(s, name)
	return err
}
