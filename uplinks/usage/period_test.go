package usage

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func day(year int, month time.Month, day int) Date { return Date{year, month, day} }

func at(text string) time.Time {
	t, err := time.ParseInLocation(time.DateTime, text, time.Local)
	if err != nil {
		panic(err)
	}
	return t
}

func TestPeriod(t *testing.T) {
	for _, tt := range []struct {
		now         string
		day         int
		start, next Date
	}{
		{"2026-11-14 23:59:59", 15, day(2026, 10, 15), day(2026, 11, 15)},
		{"2026-11-15 00:00:00", 15, day(2026, 11, 15), day(2026, 12, 15)},
		{"2026-12-31 12:00:00", 1, day(2026, 12, 1), day(2027, 1, 1)},
		{"2027-01-01 00:00:00", 1, day(2027, 1, 1), day(2027, 2, 1)},
		{"2027-01-05 10:00:00", 20, day(2026, 12, 20), day(2027, 1, 20)},
		// Days that a month does not have.
		{"2027-01-30 10:00:00", 31, day(2026, 12, 31), day(2027, 1, 31)},
		{"2027-02-27 23:59:59", 31, day(2027, 1, 31), day(2027, 2, 28)},
		{"2027-02-28 00:00:00", 31, day(2027, 2, 28), day(2027, 3, 31)},
		{"2028-02-28 10:00:00", 31, day(2028, 1, 31), day(2028, 2, 29)},
		{"2028-02-29 10:00:00", 30, day(2028, 2, 29), day(2028, 3, 30)},
		{"2027-03-30 10:00:00", 31, day(2027, 2, 28), day(2027, 3, 31)},
		{"2027-04-30 10:00:00", 31, day(2027, 4, 30), day(2027, 5, 31)},
	} {
		if start, next := Period(at(tt.now), tt.day); start != tt.start || next != tt.next {
			t.Errorf("%s, day %d: %s to %s, want %s to %s", tt.now, tt.day, start, next, tt.start, tt.next)
		}
	}
}

// instants draws any time of a few centuries, anywhere.
var instants = rapid.Custom(func(t *rapid.T) time.Time {
	zone := time.FixedZone("", rapid.IntRange(-12*3600, 14*3600).Draw(t, "zone"))
	return time.Unix(rapid.Int64Range(-1e9, 1e10).Draw(t, "seconds"), 0).In(zone)
})

// TestPeriodHoldsNow: every moment is in one period, which begins on the billing day or the last of a shorter month, and ends
// where the next one begins.
func TestPeriodHoldsNow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, wanted := instants.Draw(t, "now"), rapid.IntRange(1, 31).Draw(t, "day")
		start, next := Period(now, wanted)
		if today := dateOf(now); today.before(start) || !today.before(next) {
			t.Fatalf("%s is not in %s to %s", today, start, next)
		}
		for _, d := range []Date{start, next} {
			last := time.Date(d.Year, d.Month+1, 0, 0, 0, 0, 0, time.UTC).Day()
			if d.Day != min(wanted, last) {
				t.Fatalf("%s is not day %d of a month with %d", d, wanted, last)
			}
		}
		then := time.Date(next.Year, next.Month, next.Day, 0, 0, 0, 0, time.UTC)
		if again, _ := Period(then, wanted); again != next {
			t.Fatalf("%s is followed by %s", next, again)
		}
		if before, _ := Period(then.Add(-time.Second), wanted); before != start {
			t.Fatalf("%s follows %s", next, before)
		}
	})
}

func TestDateText(t *testing.T) {
	for _, d := range []Date{{}, day(2026, 11, 5), day(1, 1, 1), dateOf(time.Unix(1<<40, 0))} {
		text, err := d.MarshalText()
		back := day(9, 9, 9)
		if err != nil || back.UnmarshalText(text) != nil || back != d {
			t.Errorf("%v became %q and %v", d, text, back)
		}
	}
	var d Date
	for _, text := range []string{"2026-13-01", "2027-02-29", "x", "2026-11-05T00:00:00Z"} {
		if d.UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q was taken for %s", text, d)
		}
	}
}
