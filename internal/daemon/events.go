package daemon

import (
	"context"
	"log/slog"
	"time"

	"tapgw/api"
	"tapgw/internal/apiserver"
	"tapgw/internal/history"
	"tapgw/uplinks"
)

// journal tells people and followers of the API what happens.
type journal struct {
	*apiserver.Hub
	log   *slog.Logger
	past  *history.History
	tally *tally
}

func newJournal(log *slog.Logger, past *history.History, t *tally) *journal {
	return &journal{apiserver.NewHub(), log, past, t}
}

// Publish tells the followers, counts, and remembers for those to come.
func (j *journal) Publish(e api.Event) {
	j.tally.happened(e.Kind)
	j.past.Event(j.Hub.Publish(e))
}

// uplink reports what the tracker noticed.
func (j *journal) uplink(e uplinks.Event) {
	out := api.Event{Time: e.Time, Kind: string(e.Kind), Uplink: e.Uplink, Family: family(e), From: string(e.From), To: string(e.To), Message: e.Reason}
	level := slog.LevelInfo
	if e.Kind == uplinks.StateChanged && !e.To.Usable() && e.From.Usable() {
		level = slog.LevelWarn
	}
	j.log.Log(context.Background(), level, "uplink", "name", e.Uplink, "family", out.Family, "event", e.Kind, "from", e.From, "to", e.To, "reason", e.Reason)
	j.Publish(out)
}

// family is what an event concerns alone: an uplink appears and vanishes as a whole.
func family(e uplinks.Event) string {
	if e.Kind == uplinks.Appeared || e.Kind == uplinks.Vanished {
		return ""
	}
	return familyName(e.Family)
}

// familyName is that of the API.
func familyName(f uplinks.Family) string {
	if f == uplinks.IPv6 {
		return api.FamilyIPv6
	}
	return api.FamilyIPv4
}

// note reports something that concerns no uplink's state.
func (j *journal) note(kind, message string, at time.Time) {
	j.log.Warn("host", "event", kind, "what", message)
	j.Publish(api.Event{Time: at, Kind: kind, Message: message})
}
