package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"tapgw/internal/journal"
)

// logger writes to stderr in the form that suits who reads it: systemd's journal, people or programs.
func (a *app) logger(c *cobra.Command) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return nil, misuse(c, fmt.Errorf("--log-level %q is none of debug, info, warn, error", a.logLevel))
	}
	text := slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: level})
	switch {
	case a.Journal:
		return slog.New(journal.NewHandler(level, text)), nil
	case a.Console:
		return slog.New(tint.NewTextHandler(a.Stderr, &tint.Options{
			Level: level, TimeFormat: time.TimeOnly, NoColor: !a.colourful(), ReplaceAttr: forPeople,
		})), nil
	}
	return slog.New(text), nil
}

// forPeople leaves out what is empty, and lets nothing steer the terminal, as the handler passes escape sequences on.
func forPeople(_ []string, attr slog.Attr) slog.Attr {
	switch attr.Key {
	case slog.TimeKey, slog.LevelKey, slog.MessageKey:
		return attr
	}
	text := clean(attr.Value.Resolve().String())
	if text == "" {
		return slog.Attr{}
	}
	return slog.String(attr.Key, text)
}
