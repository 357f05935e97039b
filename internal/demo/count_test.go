package demo

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

var start = time.Unix(1000, 0)

func at(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }

// someVisits: the cut is at 1, the switch at 3; what failed is noticed last.
func someVisits() []visit {
	return []visit{
		{at(0), first, false}, {at(0.5), second, false}, {at(3.2), second, false}, {at(3.1), second, false},
		{at(5), first, false}, {at(1.5), -1, true}, {at(2), -1, true}, {at(4), -1, true},
	}
}

func TestTally(t *testing.T) {
	for _, tc := range []struct {
		from, to time.Time
		good     [count]int
		failed   int
	}{
		{time.Time{}, time.Time{}, [count]int{2, 3}, 3},
		{time.Time{}, at(3), [count]int{1, 1}, 2},
		{at(3), time.Time{}, [count]int{1, 2}, 1},
		{at(0.5), at(1.5), [count]int{0, 1}, 0},
	} {
		if good, failed := tally(someVisits(), tc.from, tc.to); good != tc.good || failed != tc.failed {
			t.Errorf("%v to %v: %v and %d", tc.from, tc.to, good, failed)
		}
	}
}

func TestFirstBy(t *testing.T) {
	if began, found := firstBy(someVisits(), second, at(1)); !found || !began.Equal(at(3.1)) {
		t.Errorf("%v %t", began, found)
	}
	if began, found := firstBy(someVisits(), second, at(3.2)); !found || !began.Equal(at(3.2)) {
		t.Errorf("%v %t", began, found)
	}
	if _, found := firstBy(someVisits(), second, at(3.3)); found {
		t.Error("found what is not there")
	}
}

func TestJudge(t *testing.T) {
	var p player
	p.judge(someVisits(), at(3))
	if p.failedBefore != 2 || p.failedAfter != 1 || p.after != 4 {
		t.Errorf("%+v", p.figures)
	}
	p = player{}
	p.judge(someVisits(), time.Time{})
	if p.failedBefore != 3 || p.failedAfter != 0 || p.after != 0 {
		t.Errorf("without a switch: %+v", p.figures)
	}
}

func TestMeterShowsTheLastSecond(t *testing.T) {
	var m meter
	var bps [count]float64
	for i := range 31 { // 3 s; the second uplink stops after two
		seconds := float64(i) / 10
		bps = m.rates(reading{at: at(seconds), bytes: [count]uint64{uint64(seconds * 1e6), uint64(min(seconds, 2) * 1e6)}})
	}
	if bps[first] < 7.9e6 || bps[first] > 8.1e6 || bps[second] != 0 {
		t.Errorf("%v", bps)
	}
	if len(m.readings) > 12 {
		t.Errorf("%d readings kept", len(m.readings))
	}
}

func TestJournal(t *testing.T) {
	j := newJournal(slog.New(slog.DiscardHandler))
	for _, part := range []string{"one\ntw", "o\n", strings.Repeat("x", 10_000), "\n", "end"} {
		if n, err := j.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got, want := j.tail(), "one\ntwo\n"+strings.Repeat("x", keptBytes); got != want {
		t.Errorf("%q", got)
	}
	select {
	case <-j.ready:
		t.Error("ready too early")
	default:
	}
	for range 2 {
		_, _ = j.Write([]byte(strings.Repeat("more\n", 100) + "msg=ready\n"))
	}
	<-j.ready
	if lines := strings.Split(j.tail(), "\n"); len(lines) != keptLines || lines[keptLines-1] != "msg=ready" {
		t.Errorf("%q", lines)
	}
}
