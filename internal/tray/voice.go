package tray

import (
	"context"
	"time"

	"github.com/godbus/dbus/v5"
)

// The desktop's service for notes (Desktop Notifications Specification 1.2).
const (
	notesName   = "org.freedesktop.Notifications"
	notesPath   = "/org/freedesktop/Notifications"
	notesMethod = notesName + ".Notify"
)

const (
	noteTimeout = 10 * time.Second // of the service, which may have to start
	noteBacklog = 16
	appIcon     = "tapgw"
)

// The urgencies of a note.
const (
	urgencyNormal   byte = 1
	urgencyCritical byte = 2
)

// voice tells the desktop's user; it never holds its caller up.
type voice struct {
	bus   *dbus.Conn
	notes chan note
	shown map[string]uint32 // the service's number of the last note, by topic
}

func newVoice(bus *dbus.Conn) *voice {
	return &voice{bus: bus, notes: make(chan note, noteBacklog), shown: make(map[string]uint32)}
}

// say is lost where the desktop does not keep up.
func (v *voice) say(n note) {
	select {
	case v.notes <- n:
	default:
	}
}

// run passes notes on until ctx ends.
func (v *voice) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-v.notes:
			v.show(ctx, n)
		}
	}
}

// show leaves out what a desktop without the service would not show.
func (v *voice) show(ctx context.Context, n note) {
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	urgency := urgencyNormal
	if n.urgent {
		urgency = urgencyCritical
	}
	hints := map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgency), "desktop-entry": dbus.MakeVariant("tapgw-tray")}
	call := v.bus.Object(notesName, notesPath).CallWithContext(ctx, notesMethod, 0,
		"tapgw", v.shown[n.topic], appIcon, n.summary, n.body, []string{}, hints, int32(-1))
	var id uint32
	if call.Store(&id) == nil {
		v.shown[n.topic] = id
	}
}
