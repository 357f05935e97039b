// Package usage counts the data that uplinks carry, by billing period, and says when a plan's cap is reached. It is pure: counters
// and time come in as arguments, and what must outlive the daemon goes out as bytes.
package usage

import (
	"fmt"
	"time"
)

// Date is a day of the calendar at the place of the clock, so that periods do not move with time zones.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

func dateOf(t time.Time) Date {
	var d Date
	d.Year, d.Month, d.Day = t.Date()
	d.Year = min(max(d.Year, 1), 9999) // what has a text
	return d
}

// String is the date as 2026-11-15.
func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

// MarshalText is String; the text of the zero Date is empty.
func (d Date) MarshalText() ([]byte, error) {
	if d == (Date{}) {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (d *Date) UnmarshalText(text []byte) error {
	if *d = (Date{}); len(text) == 0 {
		return nil
	}
	t, err := time.Parse(time.DateOnly, string(text))
	if err == nil {
		*d = dateOf(t)
	}
	return err
}

func (d Date) before(o Date) bool {
	if d.Year != o.Year {
		return d.Year < o.Year
	}
	if d.Month != o.Month {
		return d.Month < o.Month
	}
	return d.Day < o.Day
}

// billing is the day in a month on which a period begins, at most its last.
func billing(year int, month time.Month, day int) Date {
	first := time.Date(year, month, 1, 12, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1)
	return Date{first.Year(), first.Month(), min(max(day, 1), last.Day())}
}

// Period returns the billing period that now is in, by the calendar of its location: the day on which it began, and that of the next.
// Day is 1 to 31; shorter months have the last day instead.
func Period(now time.Time, day int) (start, next Date) {
	today := dateOf(now)
	start = billing(today.Year, today.Month, day)
	if today.before(start) {
		return billing(today.Year, today.Month-1, day), start
	}
	return start, billing(today.Year, today.Month+1, day)
}
