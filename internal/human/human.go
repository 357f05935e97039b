// Package human writes numbers, times and text from outside for people who read them in a terminal.
package human

import (
	"fmt"
	"math"
	"strings"
	"time"
)

const day = 24 * time.Hour

// Duration is d in at most five columns.
func Duration(d time.Duration) string {
	d = max(d, 0)
	hours, minutes := int(d/time.Hour), int(d/time.Minute)%60
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 10*time.Minute:
		return fmt.Sprintf("%dm%ds", minutes, int(d.Seconds())%60)
	case d < time.Hour:
		return fmt.Sprintf("%dm", minutes)
	case d < 10*time.Hour:
		return fmt.Sprintf("%dh%dm", hours, minutes)
	case d < day:
		return fmt.Sprintf("%dh", hours)
	case d < 10*day:
		return fmt.Sprintf("%dd%dh", hours/24, hours%24)
	case d < 1000*day:
		return fmt.Sprintf("%dd", hours/24)
	}
	return fmt.Sprintf("%dy", hours/24/365)
}

// Seconds is n seconds, which may be more than a Duration holds.
func Seconds(n int64) string {
	return Duration(time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second)
}

// Since is the time from t to now, "-" when t is not set.
func Since(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return Duration(now.Sub(t))
}

// Scaled is v with a decimal prefix: three digits, a space, the prefix.
func Scaled(v float64) string {
	const prefixes = " kMGTPE"
	v = max(v, 0)
	i := 0
	for v >= 999.5 && i < len(prefixes)-1 {
		v /= 1000
		i++
	}
	v = min(v, 999)
	form := "%.0f "
	if i > 0 && v < 99.95 {
		form = "%.1f "
	}
	return fmt.Sprintf(form, v) + strings.TrimSpace(prefixes[i:i+1])
}

// Rate is bits per second.
func Rate(bps float64) string {
	if bps < 0.5 {
		return "0"
	}
	return Scaled(bps) + "b/s"
}

// Amount is bytes.
func Amount(n uint64) string { return Scaled(float64(n)) + "B" }

// Count is a number in at most five columns.
func Count(n int) string {
	if n < 100_000 {
		return fmt.Sprint(n)
	}
	return strings.ReplaceAll(Scaled(float64(n)), " ", "")
}

// RTT is a round-trip time in at most six columns, "-" when it is not known.
func RTT(ms float64) string {
	switch {
	case ms <= 0:
		return "-"
	case ms < 9.95:
		return fmt.Sprintf("%.1fms", ms)
	case ms < 9999:
		return fmt.Sprintf("%.0fms", ms)
	}
	return fmt.Sprintf("%.0fs", min(ms/1000, 9999))
}

// Percent is a share in at most four columns.
func Percent(share float64) string {
	p := 100 * max(share, 0)
	if p > 0 && p < 9.95 {
		return fmt.Sprintf("%.1f%%", p)
	}
	return fmt.Sprintf("%.0f%%", min(p, 999))
}
