package demo

import (
	"fmt"
	"time"
)

// The bars that the gateway has to meet.
const (
	minGain     = 1.5 // of both uplinks together over the best alone
	maxSwitched = 3 * time.Second
	maxReturned = 10 * time.Second
)

// never stands for the time of what did not happen.
const never time.Duration = -1

// figures is what was measured.
type figures struct {
	alone    float64    // bits per second, by the best uplink
	together float64    // bits per second, by both
	sessions [count]int // of the downloads by both
	refused  int        // downloads that failed

	switched     time.Duration // from the cut to the first session of those that all avoid the dead uplink
	failedBefore int           // sessions that began before that and failed
	failedAfter  int           // sessions that began after that and failed
	after        int           // all that began after that
	returned     time.Duration // from the provider's return to the first session by it
}

// check is one line of the table: what happened, and whether it was good enough.
type check struct {
	what, measured string
	bar            string // "" for what is only told
	ok             bool
}

func (f *figures) gain() float64 {
	if f.alone <= 0 {
		return 0
	}
	return f.together / f.alone
}

func (f *figures) checks() []check {
	return []check{
		told("16 downloads, the best ISP alone", rate(f.alone)),
		told("16 downloads, both ISPs together", rate(f.together)),
		{"  as a multiple of the best alone", fmt.Sprintf("%.2f x", f.gain()), fmt.Sprintf("at least %.1f x", minGain), f.gain() >= minGain},
		told("  their sessions by "+titles[first]+" and "+titles[second], fmt.Sprintf("%d and %d", f.sessions[first], f.sessions[second])),
		{"  downloads that failed", fmt.Sprint(f.refused), "none", f.refused == 0},
		timed(titles[first]+" cut: new sessions by "+titles[second]+" after", f.switched, maxSwitched),
		told("  sessions that failed until then", fmt.Sprint(f.failedBefore)),
		{"  sessions that failed from then on", fmt.Sprintf("%d of %d", f.failedAfter, f.after), "none", f.failedAfter == 0 && f.after > 0},
		timed(titles[first]+" back: new sessions by it after", f.returned, maxReturned),
	}
}

func told(what, measured string) check { return check{what: what, measured: measured, ok: true} }

func timed(what string, took, limit time.Duration) check {
	return check{what, span(took), fmt.Sprintf("at most %.0f s", limit.Seconds()), took != never && took <= limit}
}

// failed counts the checks that were not met.
func failed(list []check) (n int) {
	for _, c := range list {
		if !c.ok {
			n++
		}
	}
	return n
}

func rate(bps float64) string { return fmt.Sprintf("%.1f Mbit/s", bps/mega) }

func span(d time.Duration) string {
	if d == never {
		return "never"
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
