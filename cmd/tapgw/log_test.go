package main

import (
	"context"
	"strings"
	"testing"
)

// TestLogInATerminal: people get the time of day, no empty attributes, and nothing that steers their terminal; programs get the log as ever.
func TestLogInATerminal(t *testing.T) {
	logged := func(terminal bool, vars map[string]string) string {
		w := newWorld("", "run")
		w.Console = terminal
		for k, v := range vars {
			w.vars[k] = v
		}
		w.Run = func(_ context.Context, o RunOptions) error {
			o.Logger.Info("ready", "reason", "", "name", "evil\x1b[2J", "uplinks", 2)
			return nil
		}
		if code := w.run(); code != 0 {
			t.Errorf("exit status %d", code)
		}
		return w.err.String()
	}
	plain := logged(true, map[string]string{"NO_COLOR": "1"})
	if _, line, _ := strings.Cut(plain, " "); line != "INF ready name=evil?[2J uplinks=2\n" {
		t.Errorf("%q", plain)
	}
	if text := logged(true, nil); strings.Contains(text, "evil\x1b") || !strings.Contains(text, "\x1b[2mname=\x1b[0mevil?[2J") {
		t.Errorf("%q", text)
	}
	if text := logged(false, nil); !strings.Contains(text, `level=INFO msg=ready reason="" name="evil\x1b[2J" uplinks=2`) {
		t.Errorf("%q", text)
	}
}
