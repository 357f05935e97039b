package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tapgw/api"
	"tapgw/internal/capture"
)

const captureHelp = `Record the packets of an uplink's sessions as pcapng, as Wireshark and tcpdump
read it: before their translation, at the ports of the LAN and at the TAP, and
after it, at the uplink. Every interface is named in the file, with the side that
it is on. What the kernel's datapath carries is recorded too.

SESSION is a protocol and the endpoint of a client or a server, as
tcp:192.168.1.20:51812 or udp:[2001:db8::53]:53; without it everything at the
uplink is recorded. To look at it at once:

  sudo tapgw capture --uplink cable -w - | wireshark -k -i -

Exit status: 10 when there is no such uplink. Needs root.`

// The bounds of a capture unless others are given.
const (
	capturePackets  = 10_000
	captureDuration = time.Minute
)

// capturing is one command line.
type capturing struct {
	uplink, session, file string
	limits                capture.Limits
}

func (a *app) captureCommand() *cobra.Command {
	var o capturing
	c := &cobra.Command{
		Use:   "capture --uplink NAME",
		Short: "Record packets of an uplink, before and after their translation",
		Long:  captureHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			wanted, err := sessionFilter(o.session)
			switch {
			case err != nil:
				return misuse(c, err)
			case o.uplink == "":
				return misuse(c, errors.New("--uplink is missing, see `tapgw uplinks`"))
			case o.limits.Packets < 1 || o.limits.Duration <= 0:
				return misuse(c, errors.New("--count and --duration must be more than 0"))
			case o.file == "-" && a.Terminal:
				return misuse(c, errors.New("a terminal cannot show a capture; give a file, or a pipe"))
			}
			return a.capture(c.Context(), o, wanted)
		},
	}
	c.Flags().StringVar(&o.uplink, "uplink", "", "the uplink of this name")
	c.Flags().StringVar(&o.session, "session", "", "only sessions of PROTO:ADDR:PORT, of a client or a server")
	c.Flags().StringVarP(&o.file, "write", "w", "", "the file to write, - for stdout (default tapgw-capture-DATE-TIME.pcapng)")
	c.Flags().IntVar(&o.limits.Packets, "count", capturePackets, "at most so many packets")
	c.Flags().DurationVar(&o.limits.Duration, "duration", captureDuration, "at most so long")
	return c
}

// sessionFilter reads PROTO:ADDR:PORT.
func sessionFilter(text string) (wanted func(api.Session) bool, err error) {
	if text == "" {
		return nil, nil
	}
	proto, rest, ok := strings.Cut(text, ":")
	at, err := netip.ParseAddrPort(rest)
	if !ok || err != nil {
		return nil, fmt.Errorf("--session %q is not PROTO:ADDR:PORT, as tcp:192.168.1.20:51812", text)
	}
	return func(s api.Session) bool {
		return s.Proto == proto && (s.Inside == at || s.Remote == at || s.Outside == at)
	}, nil
}

// capture records into the file, and says on stderr what it does.
func (a *app) capture(ctx context.Context, o capturing, wanted func(api.Session) bool) error {
	s, err := a.client().Status(ctx)
	if err != nil {
		return err
	}
	u, err := uplinkIn(s, o.uplink)
	if err != nil {
		return err
	}
	if o.file == "" {
		o.file = "tapgw-capture-" + a.Now().Format("20060102-150405") + ".pcapng"
	}
	points, err := a.CapturePoints(a.configPath, u.Interface, s)
	if err != nil {
		return err
	}
	open, err := capture.Open(points)
	if err != nil {
		return err
	}
	out, closing, err := a.captureFile(o.file)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.Stderr, wrap(clean(captureBegins(points, o)), columns, "  "))
	result, err := open.Run(ctx, out, a.sessionsOf(o.uplink, wanted), o.limits)
	if err := errors.Join(err, closing()); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	_, err = fmt.Fprintln(a.Stderr, wrap(clean(captureEnds(result, o.file)), columns, "  "))
	return err
}

// sessionsOf chooses those of an uplink that are wanted; nil is all of them, and whatever else passes the uplink.
func (a *app) sessionsOf(uplink string, wanted func(api.Session) bool) *capture.Sessions {
	all := wanted == nil
	return &capture.Sessions{
		All: all,
		List: func(ctx context.Context) ([]api.Session, error) {
			return a.client().Sessions(ctx, api.Filter{Uplink: uplink})
		},
		Wanted: func(s api.Session) bool { return all || wanted(s) },
	}
}

// captureFile opens the file to write; nobody else may read it.
func (a *app) captureFile(path string) (w io.Writer, closing func() error, err error) {
	if path == "-" {
		return a.Stdout, func() error { return nil }, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, reportMode)
	if errors.Is(err, fs.ErrExist) {
		return nil, nil, fmt.Errorf("%s exists; give another name with --write", path)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("write the capture: %w", err)
	}
	return f, f.Close, nil
}

func captureBegins(points []capture.Point, o capturing) string {
	places := map[capture.Side][]string{}
	for _, p := range points {
		if list := places[p.Side]; len(list) == 0 || list[len(list)-1] != p.Device {
			places[p.Side] = append(list, p.Device)
		}
	}
	return fmt.Sprintf("Recording before translation at %s, after it at %s; at most %d packets, %s. Ctrl-C ends it.",
		strings.Join(places[capture.Before], ", "), strings.Join(places[capture.After], ", "), o.limits.Packets, duration(o.limits.Duration))
}

func captureEnds(r capture.Result, file string) string {
	text := fmt.Sprintf("%d packets before translation, %d after it", r.Before, r.After)
	if r.Lost > 0 {
		text += fmt.Sprintf(", %d lost as they came too fast", r.Lost)
	}
	if file != "-" {
		text += ", in " + file
	}
	return text
}
