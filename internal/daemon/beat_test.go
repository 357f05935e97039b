package daemon

import (
	"testing"
	"time"

	"tapgw/internal/lab/labtest"
	"tapgw/probe"
)

func TestBeat(t *testing.T) {
	const every, ticks = 20 * time.Millisecond, 10
	begun := time.Now()
	b, err := newBeat()
	labtest.Must(t, err)
	labtest.Must(t, b.every(every))
	for range ticks {
		if !b.wait() {
			t.Fatal("no tick")
		}
	}
	if took := time.Since(begun); took <= (ticks-1)*every { // the first comes in step
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

// TestAlarm: it goes off when it is due, at once when that has passed, and no more once it was stopped.
func TestAlarm(t *testing.T) {
	a := newAlarm()
	due := time.Now().Add(50 * time.Millisecond)
	a.At(due.Add(time.Hour))
	a.At(due)
	if at := <-a.Fired(); at.Before(due) {
		t.Errorf("%s early", due.Sub(at))
	}
	a.At(due)
	<-a.Fired()
	a.Stop()
	a.At(due)
	select {
	case <-a.Fired():
		t.Error("it goes off although it was stopped")
	case <-time.After(50 * time.Millisecond):
	}
}

// TestInStep: what begins at different times ticks at the same ones.
func TestInStep(t *testing.T) {
	const every = 100 * time.Millisecond
	all := []*alarm{newAlarm().(*alarm), newAlarm().(*alarm), newAlarm().(*alarm)}
	for _, one := range all {
		defer one.Stop()
		labtest.Must(t, one.every(every))
		time.Sleep(every / 3)
	}
	for range 3 {
		for _, one := range all {
			if late := probe.Since(<-one.Fired(), every); late > every/2 {
				t.Errorf("%s late", late)
			}
		}
	}
}
