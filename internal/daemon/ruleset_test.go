package daemon

import (
	"testing"
	"time"

	"tapgw/internal/lab/labtest"
)

// TestRulesWait: a change soon after a look that took long is looked at later, not at once and not never.
func TestRulesWait(t *testing.T) {
	d := newTestDaemon(t)
	due := time.Now().Add(50 * time.Millisecond)
	d.ruleset.next = due
	labtest.Must(t, d.takeRules(t.Context())) // reads nothing
	select {
	case <-d.rulesChanged:
		if time.Now().Before(due) {
			t.Error("looks before it is due")
		}
	case <-time.After(10 * time.Second):
		t.Error("does not look any more")
	}
}

// TestRepairsOfRulesWait: whoever deletes our rules again and again finds them no sooner than without messages.
func TestRepairsOfRulesWait(t *testing.T) {
	d, now := newTestDaemon(t), time.Now()
	d.ruleset.repaired = now
	if missing, err := d.checkRules(now.Add(rivalPause-1), false); missing || err != nil { // reads nothing
		t.Errorf("missing %v, %v", missing, err)
	}
}
