package daemon

import (
	"testing"
	"time"

	"tapgw/internal/lab/labtest"
)

func TestBeat(t *testing.T) {
	const every, ticks = 20 * time.Millisecond, 10
	begun := time.Now()
	b, err := newBeat(every)
	labtest.Must(t, err)
	for range ticks {
		if !b.wait() {
			t.Fatal("no tick")
		}
	}
	if took := time.Since(begun); took < ticks*every {
		t.Errorf("%d ticks of %s within %s", ticks, every, took)
	}
	time.AfterFunc(every, b.stop)
	ended := make(chan error)
	go func() {
		for b.wait() { //nolint:revive // until it is stopped
		}
		ended <- nil
	}()
	labtest.Must(t, labtest.Ended(t, ended))
}
