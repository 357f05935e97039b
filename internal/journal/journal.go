// Package journal writes the log to systemd's journal: as text for people, and with each attribute as a field for programs.
package journal

import (
	"bytes"
	"context"
	"log/slog"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"

	"tapgw/api"
)

const (
	// prefix keeps our fields apart from those that the journal knows.
	prefix     = "TAPGW_"
	identifier = "tapgw"
)

// eventKey is the attribute that says of which kind an event is.
const eventKey = "event"

// messageIDs find all messages of one kind of event: journalctl MESSAGE_ID=….
var messageIDs = map[string]string{
	api.EventState:     "5437f183378c4111a51cc987065c409a",
	api.EventAppeared:  "462a0403c43b4362b2c0af3c6d7c3191",
	api.EventVanished:  "1daef73c288040e0bd71d950d5bae468",
	api.EventAddresses: "539fa31bc6f0428b88c02a42d106b840",
	api.EventGateway:   "1708c2a3ac6f4419a56828119288401f",
	api.EventSuspicion: "ed0573c4e898429dabd90e02c6a0c02e",
	api.EventRepair:    "27c6ebc364d2415fbed7287f0e14b2fd",
}

// InUse reports whether what the process writes to its standard error goes to the journal.
func InUse() bool {
	stream, err := journal.StderrIsJournalStream()
	return stream && err == nil
}

// Handler is a slog.Handler.
type Handler struct {
	level    slog.Leveler
	attrs    []slog.Attr  // of all messages
	fallback slog.Handler // for what the journal does not take
}

// NewHandler returns one for messages of a level and above. What the journal does not take goes to fallback.
func NewHandler(level slog.Leveler, fallback slog.Handler) *Handler {
	return &Handler{level: level, fallback: fallback}
}

// Enabled reports whether messages of a level are written.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level.Level() }

// WithAttrs adds attributes to all messages.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.attrs = append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)
	more.fallback = h.fallback.WithAttrs(attrs)
	return &more
}

// WithGroup does not part the attributes: the journal has one level of fields.
func (h *Handler) WithGroup(string) slog.Handler { return h }

// Handle writes a message.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	attrs := h.attrs[:len(h.attrs):len(h.attrs)]
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	fields := map[string]string{"SYSLOG_IDENTIFIER": identifier}
	for _, a := range attrs {
		value := a.Value.Resolve().String()
		fields[prefix+fieldName(a.Key)] = value
		if id, known := messageIDs[value]; known && a.Key == eventKey {
			fields["MESSAGE_ID"] = id
		}
	}
	if journal.Send(text(ctx, r.Message, attrs), priority(r.Level), fields) != nil {
		return h.fallback.Handle(ctx, r)
	}
	return nil
}

// fieldName is a key as the journal takes it.
func fieldName(key string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToUpper(key))
}

// text is a message with its attributes behind it, as the log has them elsewhere.
func text(ctx context.Context, message string, attrs []slog.Attr) string {
	var b bytes.Buffer
	plain := slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey || a.Key == slog.MessageKey {
			return slog.Attr{} // the journal has a field for it
		}
		return a
	}})
	r := slog.Record{Message: message}
	r.AddAttrs(attrs...)
	_ = plain.Handle(ctx, r) // writing to memory does not fail
	return strings.TrimSpace(message + " " + b.String())
}

// priority is a level in the words of syslog.
func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
