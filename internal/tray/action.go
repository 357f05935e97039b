package tray

import (
	"context"

	"tapgw/api"
)

// verb is what an entry of the menu does.
type verb int

const (
	_ verb = iota
	enable
	prefer
	meter
	pause
	signIn
	dashboard
	quit
)

// action is a verb with what it is done to.
type action struct {
	verb   verb
	uplink string
	on     bool
}

// changes reports whether the daemon may refuse it to those who may only look.
func (a action) changes() bool { return a.verb >= enable && a.verb <= pause }

// do does what an entry stands for, and tells what went wrong.
func (a *applet) do(ctx context.Context, what action) {
	var err error
	switch what.verb {
	case enable, prefer, meter, pause:
		err = a.change(ctx, what)
	case signIn:
		a.signIn(ctx, what.uplink)
	case dashboard:
		err = a.openDashboard(ctx)
	case quit:
		a.leave()
	}
	if err != nil {
		a.voice.say(note{topic: "error", summary: "That was not done", body: sentence(err.Error())})
	}
}

// change asks the daemon for what only the privileged may.
func (a *applet) change(ctx context.Context, what action) error {
	switch {
	case what.verb == enable:
		return a.client.SetUplink(ctx, what.uplink, what.on)
	case what.verb == prefer && what.on:
		return a.client.Prefer(ctx, what.uplink)
	case what.verb == prefer:
		return a.client.Prefer(ctx, "")
	case what.verb == meter && what.on:
		return a.client.SetMetered(ctx, what.uplink, api.MeteredOn)
	case what.verb == meter:
		return a.client.SetMetered(ctx, what.uplink, api.MeteredOff)
	case what.on:
		return a.client.Pause(ctx, api.DefaultPause)
	}
	return a.client.Resume(ctx)
}
