package usage

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tapgw/uplinks"
)

const noon = "2026-11-20 12:00:00"

func sample(name, boot string, index int, rx, tx uint64) Sample {
	return Sample{name, Device{boot, index}, uplinks.Counters{RxBytes: rx, TxBytes: tx}}
}

func count(l *Ledger, now string, samples ...Sample) { l.Count(at(now), samples) }

func expect(t *testing.T, l *Ledger, now, name string, used uint64) {
	t.Helper()
	if u := l.Of(at(now), name); u.Used != used {
		t.Errorf("%s: %s has used %d, want %d", now, name, u.Used, used)
	}
}

// restarted is the ledger as the next daemon reads it.
func restarted(t interface{ Fatal(...any) }, l *Ledger) *Ledger {
	back, err := Parse(l.Render())
	if err != nil {
		t.Fatal(err)
	}
	back.plans = l.plans
	return back
}

// TestFault60_Counters: what counters do when devices go and come, and what is counted of it.
func TestFault60_Counters(t *testing.T) {
	for _, tt := range []struct {
		name string
		next Sample
		want uint64 // beyond the 1000 before
	}{
		{"goes on", sample("lte", "a", 3, 2500, 700), 1700},
		{"stands still", sample("lte", "a", 3, 1500, 0), 0},
		{"was reset", sample("lte", "a", 3, 40, 2), 42},
		{"one direction wrapped", sample("lte", "a", 3, 1600, 0), 100},
		{"made anew", sample("lte", "a", 4, 3000, 1), 3001},
		{"the machine booted", sample("lte", "b", 3, 9000, 1), 9001},
		{"another uplink's device before", sample("lte", "a", 7, 5050, 0), 50},
	} {
		l := New()
		count(l, noon, sample("lte", "a", 3, 500, 0), sample("dsl", "a", 7, 5000, 0))
		count(l, noon, sample("lte", "a", 3, 1500, 0))
		for _, l := range []*Ledger{l, restarted(t, l)} {
			count(l, noon, tt.next)
			t.Run(tt.name, func(t *testing.T) { expect(t, l, noon, "lte", 1000+tt.want) })
		}
	}
}

// TestFirstSample: what a device carried before the uplink was known is nobody's.
func TestFirstSample(t *testing.T) {
	l := New()
	count(l, noon, sample("lte", "a", 3, 1<<40, 1<<40))
	expect(t, l, noon, "lte", 0)
	count(l, noon, sample("lte", "a", 3, 1<<40+5, 1<<40))
	expect(t, l, noon, "lte", 5)
}

// TestCountTellsWhatIsNew: what a crash would forget is to be written down at once.
func TestCountTellsWhatIsNew(t *testing.T) {
	l := New()
	for n, tt := range []struct {
		sample Sample
		want   bool
	}{
		{sample("lte", "a", 3, 1, 1), true}, {sample("lte", "a", 3, 2, 1), false}, {sample("lte", "a", 4, 0, 0), true},
		{sample("lte", "b", 4, 0, 0), true}, {sample("lte", "b", 4, 0, 0), false}, {sample("wwan0", "b", 4, 0, 0), true},
	} {
		if got := l.Count(at(noon), []Sample{tt.sample}); got != tt.want {
			t.Errorf("sample %d: %v", n, got)
		}
	}
}

func TestRenamedUplink(t *testing.T) {
	l := New()
	count(l, noon, sample("wwan0", "a", 3, 0, 0))
	count(l, noon, sample("wwan0", "a", 3, 900, 0))
	count(l, noon, sample("lte", "a", 3, 1000, 0))
	expect(t, l, noon, "lte", 1000)
	expect(t, l, noon, "wwan0", 0)
	// A new name beside the old one is another uplink.
	count(l, noon, sample("lte", "a", 3, 1000, 0), sample("more", "a", 3, 1000, 0))
	expect(t, l, noon, "lte", 1000)
	expect(t, l, noon, "more", 0)
}

func TestNewPeriod(t *testing.T) {
	l := New()
	l.SetPlans(map[string]Plan{"lte": {Cap: 100, BillingDay: 15, Warn: 80, Stop: 100}})
	count(l, "2026-11-14 23:59:00", sample("lte", "a", 3, 0, 0))
	count(l, "2026-11-14 23:59:59", sample("lte", "a", 3, 100, 0))
	if u := l.Of(at("2026-11-14 23:59:59"), "lte"); u.Level != Stopped || !u.Ends.Equal(at("2026-11-15 00:00:00")) {
		t.Errorf("before: %+v", u)
	}
	if u := l.Of(at("2026-11-15 00:00:00"), "lte"); u.Level != Fine || u.Used != 0 || !u.Ends.Equal(at("2026-12-15 00:00:00")) {
		t.Errorf("at midnight: %+v", u)
	}
	count(l, "2026-11-15 00:00:01", sample("lte", "a", 3, 103, 0))
	expect(t, l, "2026-11-15 00:00:01", "lte", 3)
}

// TestFault57_ClockJumps: the clock is set wrong and right again, by hours and years, in any direction.
func TestFault57_ClockJumps(t *testing.T) {
	for _, wrong := range []string{
		"2026-11-20 11:00:00", "2026-11-20 13:00:00", "2036-11-20 12:00:00", "2016-11-20 12:00:00", "1970-01-01 00:00:10", "2026-12-03 00:00:00",
	} {
		l := New()
		count(l, noon, sample("lte", "a", 3, 0, 0))
		count(l, noon, sample("lte", "a", 3, 700, 0))
		count(l, wrong, sample("lte", "a", 3, 701, 0))
		count(l, wrong, sample("lte", "a", 3, 702, 0))
		l = restarted(t, l)
		count(l, noon, sample("lte", "a", 3, 800, 0))
		if u := l.Of(at(noon), "lte"); u.Used < 798 || u.Used > 800 {
			t.Errorf("after %s: %d", wrong, u.Used)
		}
	}
}

// TestClockNotSet: a machine without a clock begins in 1970, and what it uses until the clock is set counts for the latest period.
func TestClockNotSet(t *testing.T) {
	l := New()
	l.SetPlans(map[string]Plan{"lte": {Cap: 1000, BillingDay: 5, Warn: 80, Stop: 100}})
	count(l, noon, sample("lte", "a", 3, 0, 0))
	count(l, noon, sample("lte", "a", 3, 995, 0))
	l = restarted(t, l)
	const boot = "1970-01-01 00:01:00"
	count(l, boot, sample("lte", "b", 3, 5, 0))
	if u := l.Of(at(boot), "lte"); u.Used != 1000 || u.Level != Stopped {
		t.Errorf("in 1970: %+v", u)
	}
	count(l, noon, sample("lte", "b", 3, 6, 0))
	expect(t, l, noon, "lte", 1001)
}

func TestLevels(t *testing.T) {
	plan := Plan{Cap: 1000, BillingDay: 1, Warn: 80, Stop: 100}
	with := func(change func(*Plan)) Plan { p := plan; change(&p); return p }
	for _, tt := range []struct {
		plan Plan
		used uint64
		want Level
	}{
		{plan, 0, Fine}, {plan, 799, Fine}, {plan, 800, Warned}, {plan, 999, Warned}, {plan, 1000, Stopped}, {plan, math.MaxUint64, Stopped},
		{with(func(p *Plan) { p.Warn = 0 }), 999, Fine},
		{with(func(p *Plan) { p.Stop = 0 }), 5000, Warned},
		{with(func(p *Plan) { p.Stop = 120 }), 1199, Warned},
		{with(func(p *Plan) { p.Stop = 120 }), 1200, Stopped},
		{with(func(p *Plan) { p.Cap = 0 }), 5000, Fine},
		{Plan{Cap: 1e15, BillingDay: 1, Warn: 200, Stop: 200}, 2e15, Stopped},
	} {
		l := New()
		l.SetPlans(map[string]Plan{"lte": tt.plan})
		if err := l.Set(at(noon), "lte", tt.used); err != nil {
			t.Fatal(err)
		}
		if u := l.Of(at(noon), "lte"); u.Level != tt.want {
			t.Errorf("%+v: %+v, want %s", tt.plan, u, tt.want)
		}
	}
}

// TestWarnOnce: a warning comes once in a period, also over a restart, and again when it was no longer due in between.
func TestWarnOnce(t *testing.T) {
	l := New()
	l.SetPlans(map[string]Plan{"lte": {Cap: 1000, BillingDay: 1, Warn: 80, Stop: 100}})
	warn := func(now string, want bool) {
		t.Helper()
		if l.Warn(at(now), "lte") != want {
			t.Errorf("%s: warned %v", now, !want)
		}
	}
	warn(noon, false)
	count(l, noon, sample("lte", "a", 3, 0, 0))
	warn(noon, false)
	count(l, noon, sample("lte", "a", 3, 900, 0))
	warn(noon, true)
	warn(noon, false)
	l = restarted(t, l)
	warn(noon, false)
	l.SetPlans(map[string]Plan{"lte": {Cap: 2000, BillingDay: 1, Warn: 80, Stop: 100}})
	warn(noon, false)
	l.SetPlans(map[string]Plan{"lte": {Cap: 1000, BillingDay: 1, Warn: 80, Stop: 100}})
	warn(noon, true)
	const december = "2026-12-01 00:00:00"
	warn(december, false)
	count(l, december, sample("lte", "a", 3, 1800, 0))
	warn(december, true)
}

// TestAllow: the user wants the uplink in spite of its cap, until the period ends.
func TestAllow(t *testing.T) {
	l := New()
	l.SetPlans(map[string]Plan{"lte": {Cap: 1000, BillingDay: 1, Stop: 100}})
	for _, err := range []error{l.Set(at(noon), "lte", 1000), l.Allow(at(noon), "lte")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if u := restarted(t, l).Of(at(noon), "lte"); u.Level != Allowed {
		t.Errorf("allowed: %+v", u)
	}
	const december = "2026-12-02 00:00:00"
	if err := l.Set(at(december), "lte", 1000); err != nil {
		t.Fatal(err)
	}
	if u := l.Of(at(december), "lte"); u.Level != Stopped {
		t.Errorf("in the next period: %+v", u)
	}
	if err := l.Set(at(noon), "nobody", 1); !errors.Is(err, ErrUnknown) {
		t.Errorf("nobody: %v", err)
	}
}

// TestSetBeforeFirstSample: what a device carried before is not added to what the user says.
func TestSetBeforeFirstSample(t *testing.T) {
	l := New()
	l.SetPlans(map[string]Plan{"lte": {Cap: 1e9, BillingDay: 1}})
	if err := l.Set(at(noon), "lte", 500); err != nil {
		t.Fatal(err)
	}
	count(l, noon, sample("lte", "a", 3, 1e6, 0))
	expect(t, l, noon, "lte", 500)
}

// TestPlanChanges: the running period keeps its count when the cap changes, and when the billing day does.
func TestPlanChanges(t *testing.T) {
	l := New()
	l.SetPlans(map[string]Plan{"lte": {Cap: 1000, BillingDay: 1, Stop: 100}})
	count(l, noon, sample("lte", "a", 3, 0, 0))
	count(l, noon, sample("lte", "a", 3, 600, 0))
	for _, billing := range []int{1, 15, 25, 31, 20, 1} {
		l.SetPlans(map[string]Plan{"lte": {Cap: 5000, BillingDay: billing, Stop: 100}})
		if u := l.Of(at(noon), "lte"); u.Used != 600 || u.Cap != 5000 {
			t.Errorf("day %d: %+v", billing, u)
		}
		l = restarted(t, l)
	}
	if u := l.Of(at("2026-12-01 00:00:00"), "lte"); u.Used != 0 {
		t.Errorf("next period: %+v", u)
	}
}

// TestBounded: ever new names and dates do not make the ledger grow, and what is in use stays.
func TestBounded(t *testing.T) {
	l := New()
	for n := range 1000 {
		now := at(noon).Add(time.Duration(n) * time.Second)
		l.Count(now, []Sample{sample("lte", "a", 3, uint64(n), 0), sample(fmt.Sprint("ppp", n), "a", 100+n, 1, 1)})
		l.Of(at("2026-01-01 12:00:00").AddDate(n, 0, 0), "lte")
		l.Of(now, "lte")
	}
	if len(l.entries) > maxEntries || len(l.entries["lte"].Periods) > maxPeriods {
		t.Errorf("%d entries, %d periods", len(l.entries), len(l.entries["lte"].Periods))
	}
	if data := l.Render(); len(data) > MaxFile {
		t.Errorf("%d bytes", len(data))
	}
	restarted(t, l)
	expect(t, l, noon, "lte", 999)
}

// TestNothingIsLost: whatever the clock, the counters and the daemon do, each byte is counted once, in the period that the clock
// showed.
func TestNothingIsLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, model := New(), map[Date]uint64{}
		billing := rapid.IntRange(1, 31).Draw(t, "day")
		l.SetPlans(map[string]Plan{"lte": {BillingDay: billing}})
		clocks := rapid.SliceOfN(rapid.Map(rapid.Int64Range(0, 100*365), func(n int64) time.Time { return at(noon).AddDate(0, 0, int(n)) }), maxPeriods, maxPeriods).Draw(t, "clocks")
		now, boot, index := clocks[0], 0, 3
		var rx, tx uint64
		count := func() { l.Count(now, []Sample{sample("lte", fmt.Sprint(boot), index, rx, tx)}) }
		count()
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			more := rapid.Uint64Range(0, 1e12).Draw(t, "bytes")
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				now = rapid.SampledFrom(clocks).Draw(t, "clock")
			case 1:
				l = restarted(t, l)
			case 2:
				index, rx, tx = index+1, 0, 0
			case 3:
				boot, rx, tx = boot+1, 0, 0
			}
			rx, tx = rx+more/3, tx+more-more/3
			start, _ := Period(now, billing)
			model[start] += more
			count()
		}
		for _, now := range clocks {
			start, _ := Period(now, billing)
			if used := l.Of(now, "lte").Used; used != model[start] {
				t.Fatalf("%s: %d, want %d", start, used, model[start])
			}
		}
	})
}
