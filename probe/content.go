package probe

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"
)

const (
	// contentChecks so many Checks are between two questions for content.
	contentChecks = 4
	// sparingContent is between them on an uplink where bytes cost money.
	sparingContent = time.Hour
	// portalChecks and sparingPortal are the same while a portal is in the way: somebody may be signing in.
	portalChecks  = 5 * time.Second
	sparingPortal = 5 * time.Minute
	// sure is how much evidence of loss is enough: 5 % lost on the way there and back look like a fifth once in many years.
	sure = 60
	// noContent so many times shows, where TCP does not answer either, that it is not that target's fault.
	noContent = 2
	// tardyAnswers in a row make an uplink slow.
	tardyAnswers = 8
)

// WrongError is the error of a probe that was answered, but not as it should have been: by somebody in between.
type WrongError struct {
	What   string // one clause for people
	Portal string // URL of the page that came instead, "" for none
}

func (w *WrongError) Error() string { return w.What }

// everybody is who is asked when there is doubt, a bit for each: all, but for content as long as the others are enough.
func (p *Plan) everybody() (mask uint16) {
	all := uint16(1)<<len(p.Targets) - 1
	far := false
	for i, t := range p.Targets {
		if t.Kind != HTTP {
			mask |= 1 << i
			far = far || !t.Kind.gateway()
		}
	}
	if !far || bits.OnesCount16(mask) < p.Quorum {
		return all
	}
	return mask
}

// content is how often content is asked for.
func (p *Plan) content(portal bool) time.Duration {
	switch {
	case portal && p.Checks == 0:
		return sparingPortal
	case portal:
		return portalChecks
	case p.Checks == 0:
		return sparingContent
	}
	return contentChecks * p.Checks
}

// awaited reports whether content was asked for and may come yet.
func (j *Judge) awaited(now time.Time) bool {
	for i, t := range j.plan.Targets {
		if m := &j.targets[i]; t.Kind == HTTP && !m.pending.IsZero() && now.Sub(m.pending) < j.plan.Timeout {
			return true
		}
	}
	return false
}

// confirm has a target asked again soon whose answer was missed or wrong for the first times.
func (j *Judge) confirm(now time.Time, target int) {
	m, kind := &j.targets[target], j.plan.Targets[target].Kind
	switch again := m.wrong != nil && m.wrongs < 2 || m.wrong == nil && m.missed < deaf; {
	case kind == HTTP && j.believed(target) != nil:
		j.contentAt = now.Add(j.plan.content(true)) // somebody may sign in
	case !j.usable || j.plan.Checks == 0:
	case kind == HTTP && m.wrong != nil, kind == TCP && m.missed == deaf, kind == HTTP && m.missed < noContent && j.unheard(TCP, TCP):
		j.contentAt = now
	case again && (kind == DNS || kind == TCP):
		j.censusAt = now
	}
}

// believed is the wrong answer of a target, nil where there is none: twice wrong, or once when nothing good was known.
func (j *Judge) believed(target int) *WrongError {
	if m := &j.targets[target]; m.wrongs > 1 || m.heard.IsZero() {
		return m.wrong
	}
	return nil
}

// portal is the URL of the page that comes instead of content, "" for none.
func (j *Judge) portal() string {
	for i, t := range j.plan.Targets {
		if w := j.believed(i); t.Kind == HTTP && w != nil {
			return w.Portal
		}
	}
	return ""
}

// flaw says what is wrong with a usable uplink, "" for nothing.
func (j *Judge) flaw() string {
	for i, t := range j.plan.Targets {
		if w := j.believed(i); w != nil {
			return t.host() + ": " + w.What
		}
	}
	switch {
	case j.unheard(DNS, DNS):
		return "names are not resolved: no answer from " + j.hosts(DNS, DNS)
	case j.unheard(TCP, HTTP):
		return "no TCP connection to " + j.hosts(TCP, HTTP)
	case j.slow:
		return fmt.Sprintf("answers take %v", j.rtt().Round(10*time.Millisecond))
	case j.lossy:
		return fmt.Sprintf("%.0f %% of the probes are lost", 100*j.loss())
	}
	return ""
}

// unheard reports whether there are targets of a kind, and none of them or of the other kind answers any more, which the loss of the
// path does not explain.
func (j *Judge) unheard(kind, other Kind) bool {
	missed := 0
	for i, t := range j.plan.Targets {
		switch m := &j.targets[i]; {
		case t.Kind == kind && m.missed < deaf, t.Kind != kind && t.Kind == other && m.missed < noContent:
			return false
		case t.Kind == kind:
			missed += m.missed
		}
	}
	return missed > 0 && math.Pow(j.least((*memory).lostShare), float64(missed)) < doubt
}

func (j *Judge) hosts(kind, other Kind) string {
	var list []string
	for _, t := range j.plan.Targets {
		if t.Kind == kind || t.Kind == other {
			list = append(list, t.host())
		}
	}
	return strings.Join(list, ", ")
}

// weigh takes the fate of a probe as evidence of loss: each lost one weighs as much as those that get through at the threshold.
func (j *Judge) weigh(lost bool) {
	limit := j.plan.Loss
	if limit == 0 {
		return
	}
	if half := limit / 2; lost {
		j.leak, j.clean = min(j.leak+(1-limit)/limit, 2*sure), max(0, j.clean-(1-half)/half)
	} else {
		j.leak, j.clean = max(0, j.leak-1), min(j.clean+1, sure)
	}
	switch {
	case j.leak >= sure && j.clean < sure:
		j.lossy = true
	case j.clean >= sure:
		j.lossy, j.leak = false, 0
	}
}

// compare takes a round-trip time as evidence of delay, unless the uplink is filled by what it carries.
func (j *Judge) compare(target int, r *round) {
	if j.plan.Latency == 0 || r.void || j.calm&(1<<target) == 0 {
		return
	}
	switch rtt := j.targets[target].rtt; {
	case rtt >= j.plan.Latency:
		j.tardy = max(j.tardy, 0) + 1
	case rtt < j.plan.Latency/4*3:
		j.tardy = min(j.tardy, 0) - 1
	}
	if j.tardy >= tardyAnswers {
		j.slow = true
	} else if j.tardy <= -tardyAnswers {
		j.slow = false
	}
}
