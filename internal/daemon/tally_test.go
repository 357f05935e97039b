package daemon

import (
	"errors"
	"testing"
	"time"

	"tapgw/uplinks"
)

// TestTallyOfFailovers: one is counted where another uplink of the same family works, and what was counted of an old uplink is not
// that of a new one with its number.
func TestTallyOfFailovers(t *testing.T) {
	count := newTally(time.Unix(0, 0))
	works, broken := uplinks.Side{State: uplinks.Up}, uplinks.Side{State: uplinks.Down}
	fails := uplinks.Event{Kind: uplinks.StateChanged, ID: 1, From: uplinks.Up, To: uplinks.Down}
	for _, other := range []*uplinks.Uplink{{ID: 2, Side: works}, {ID: 2, Side: broken, V6: works}} {
		count.changed(fails, uplinks.NewSnapshot([]*uplinks.Uplink{{ID: 1, Side: broken}, other}))
	}
	count.probed(side{1, uplinks.IPv4}, time.Unix(5, 0))
	count.probed(side{1, uplinks.IPv4}, time.Unix(5, 0))
	count.probed(side{1, uplinks.IPv4}, time.Unix(6, 0))
	if got := count.of(side{1, uplinks.IPv4}); got.failovers != 1 || got.entered["down"] != 2 || got.good != 2 || got.failed != 1 {
		t.Errorf("%+v", got)
	}
	count.changed(uplinks.Event{Kind: uplinks.Appeared, ID: 1}, uplinks.NewSnapshot(nil))
	if got := count.of(side{1, uplinks.IPv4}); got.failovers != 0 || got.good != 0 || len(got.entered) > 0 {
		t.Errorf("of the new uplink: %+v", got)
	}
}

func TestTallyOfReloads(t *testing.T) {
	started, later := time.Unix(100, 0), time.Unix(200, 0)
	count := newTally(started)
	count.reloaded(errors.New("wrong"), later)
	if _, r := count.events(); !r.Failed || r.Success != started {
		t.Errorf("after a refusal: %+v", r)
	}
	count.reloaded(nil, later)
	if _, r := count.events(); r.Failed || r.Success != later {
		t.Errorf("after a success: %+v", r)
	}
}
