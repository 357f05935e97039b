package main

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"tapgw/api"
)

const day = 24 * time.Hour

// duration is d in at most five columns.
func duration(d time.Duration) string {
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

// seconds is n seconds, which may be more than a Duration holds.
func seconds(n int64) string {
	return duration(time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second)
}

// since is the time from t to now, "-" when t is not set.
func since(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration(now.Sub(t))
}

// scaled is v with a decimal prefix: three digits, a space, the prefix.
func scaled(v float64) string {
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

// rate is bits per second.
func rate(bps float64) string {
	if bps < 0.5 {
		return "0"
	}
	return scaled(bps) + "b/s"
}

// likely is the confidence from which a capacity is shown as a fact.
const likely = 0.5

// speed is what an uplink can carry down, in at most six columns of bits per second, with a question mark while it is only assumed.
func speed(c api.Capacity) string {
	if c.DownBps < 1 {
		return "-"
	}
	text := strings.ReplaceAll(scaled(c.DownBps), " ", "")
	if c.Confidence < likely {
		return text + "?"
	}
	return text
}

// amount is bytes.
func amount(n uint64) string { return scaled(float64(n)) + "B" }

// count is a number in at most five columns.
func count(n int) string {
	if n < 100_000 {
		return fmt.Sprint(n)
	}
	return strings.ReplaceAll(scaled(float64(n)), " ", "")
}

// rtt is a round-trip time in at most six columns, "-" when it is not known.
func rtt(ms float64) string {
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

// percent is a share in at most four columns.
func percent(share float64) string {
	p := 100 * max(share, 0)
	if p > 0 && p < 9.95 {
		return fmt.Sprintf("%.1f%%", p)
	}
	return fmt.Sprintf("%.0f%%", min(p, 999))
}

// bar draws a load from 0 to 1, with its number.
func bar(load float64) string {
	const cells = 6
	full := int(math.Round(cells * min(max(load, 0), 1)))
	return fmt.Sprintf("[%s%s] %4s", strings.Repeat("#", full), strings.Repeat("-", cells-full), percent(load))
}

// addresses is the first of list and how many more there are.
func addresses(list []netip.Addr) string {
	switch len(list) {
	case 0:
		return "-"
	case 1:
		return list[0].String()
	}
	return fmt.Sprintf("%s +%d", list[0], len(list)-1)
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}
