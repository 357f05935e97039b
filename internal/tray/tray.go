// Package tray is the applet that shows a running gateway in the panel of a desktop, by StatusNotifierItem and D-Bus. It asks the
// daemon over its socket, as every other program of the user may.
package tray

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"fyne.io/systray"
	"github.com/godbus/dbus/v5"

	"tapgw/api"
)

const (
	// pace is how often rates are looked at; all else is told by the daemon.
	pace = 2 * time.Second
	// again is after what time a daemon that is gone is looked for.
	again = time.Second
)

// busName is what one applet of a session owns.
const busName = "org.tapgw.Tray"

// watcher is who collects the icons for the panels.
const watcher = "org.kde.StatusNotifierWatcher"

// ErrRuns means that the session has an applet already.
var ErrRuns = errors.New("tapgw-tray runs already")

// Options says whom to ask and where to tell.
type Options struct {
	Client *api.Client
	Logger *slog.Logger
}

// applet is what its loop alone uses.
type applet struct {
	client *api.Client
	panel  *panel
	voice  *voice
	news   news
	rights *api.Access // what the daemon lets us do, nil while not known
	pokes  chan struct{}
	leave  context.CancelFunc
	tasks  sync.WaitGroup
	signs  sync.Mutex // held while a page to sign in is open
}

// Run shows the applet until ctx ends, the session does, or its user chooses to quit.
func Run(ctx context.Context, o Options) error {
	bus, err := join(o.Logger)
	if err != nil {
		return err
	}
	defer bus.Close()
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	defer context.AfterFunc(bus.Context(), leave)()
	defer context.AfterFunc(ctx, systray.Quit)()
	a := &applet{client: o.Client, panel: newPanel(), voice: newVoice(bus), pokes: make(chan struct{}, 1), leave: leave}
	systray.SetTitle("tapgw")
	a.refresh(ctx)
	for _, task := range []func(context.Context){a.loop, a.follow, a.voice.run} {
		a.tasks.Go(func() { task(ctx) })
	}
	systray.Run(nil, leave)
	a.tasks.Wait()
	return nil
}

// join makes this the session's applet.
func join(log *slog.Logger) (*dbus.Conn, error) {
	bus, err := dbus.ConnectSessionBus()
	if err != nil {
		return nil, fmt.Errorf("no session bus (%w); start this in a desktop session", err)
	}
	reply, err := bus.RequestName(busName, dbus.NameFlagDoNotQueue)
	if err == nil && reply != dbus.RequestNameReplyPrimaryOwner {
		err = ErrRuns
	}
	if err != nil {
		return nil, errors.Join(err, bus.Close())
	}
	var there bool
	if _ = bus.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, watcher).Store(&there); !there {
		log.Warn("no panel shows icons yet; GNOME needs the extension AppIndicator (gnome-shell-extension-appindicator)")
	}
	return bus, nil
}

// loop shows what the daemon says, and does what the user chooses.
func (a *applet) loop(ctx context.Context) {
	ticks := time.NewTicker(pace)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		case <-a.pokes:
		case i := <-a.panel.clicks:
			a.do(ctx, i.entry.act)
		}
		a.refresh(ctx)
	}
}

// follow pokes the loop when something happens, and begins again when the daemon does.
func (a *applet) follow(ctx context.Context) {
	for ctx.Err() == nil {
		_ = a.client.Events(ctx, func(api.Event) { a.poke() }) // what is wrong, the loop finds out and shows
		a.poke()
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

func (a *applet) poke() {
	select {
	case a.pokes <- struct{}{}:
	default:
	}
}

// refresh asks the daemon how it is.
func (a *applet) refresh(ctx context.Context) {
	s, err := a.client.Status(ctx)
	if err == nil && a.rights == nil {
		err = a.ask(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		a.rights = nil
		a.news.forget()
		a.panel.show(ctx, stopped(err))
		return
	}
	now := time.Now()
	a.panel.show(ctx, running(s, *a.rights, now))
	for _, n := range a.news.of(s, now) {
		a.voice.say(n)
	}
}

// ask finds out what we may do.
func (a *applet) ask(ctx context.Context) error {
	rights, err := a.client.Access(ctx)
	if err == nil {
		a.rights = &rights
	}
	return err
}
