package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"
)

func TestProblemsThatTakeTurnsAreLoggedOnceAMinute(t *testing.T) {
	var c complaints
	start := time.Now()
	logged := 0
	for i := range 600 { // five minutes of checks
		if c.fresh(fmt.Sprint("problem ", i%2), start.Add(time.Duration(i)*checkEvery)) {
			logged++
		}
	}
	if logged != 10 {
		t.Errorf("logged %d times in 5 minutes, want each of two once a minute", logged)
	}
}

func TestEverNewProblemsDoNotFillTheLog(t *testing.T) {
	var c complaints
	start := time.Now()
	logged := 0
	for i := range 1000 {
		if c.fresh(fmt.Sprint("problem ", i), start) {
			logged++
		}
	}
	if logged != maxComplaints || len(c.told) != maxComplaints {
		t.Errorf("logged %d, remembers %d", logged, len(c.told))
	}
	if !c.fresh("another", start.Add(complainEvery)) {
		t.Error("silent for ever")
	}
}

func TestTheEndIsOneLine(t *testing.T) {
	if err := oneLine(nil, nil); err != nil {
		t.Errorf("a clean stop: %v", err)
	}
	closing := errors.Join(errors.New("route left"), fs.ErrPermission)
	err := oneLine(ErrNoUplink, closing)
	if want := "no uplink found; then: route left; permission denied"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if !errors.Is(err, ErrNoUplink) || !errors.Is(err, fs.ErrPermission) {
		t.Error("the causes are hidden")
	}
	if err := oneLine(nil, closing); err.Error() != "route left; permission denied" {
		t.Errorf("%q", err)
	}
}
