// Package probe finds out whether an uplink works: which targets to ask and when, and how to judge what they answer. It is
// pure; the sockets are in icmp, tcp and arp.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Bounds of a Plan. MaxTargets keeps the answers of a round in one word; the times keep probing from becoming a flood or
// from never deciding.
const (
	MaxTargets  = 16
	MaxRounds   = 100 // of Fall and Rise
	MinInterval = 50 * time.Millisecond
	MaxInterval = time.Hour
	MinTimeout  = 10 * time.Millisecond
	MaxTimeout  = time.Minute

	// maxOverlap bounds how many rounds may be open at once: Timeout ≤ maxOverlap × Interval.
	maxOverlap = 4
)

// ErrPlan is wrapped by every error of Plan.Validate.
var ErrPlan = errors.New("unusable probe settings")

// Plan says what to ask how often, and how much silence is too much. While all is well as many targets are asked as must
// answer; when they do not, all of them in quick rounds.
//
// An uplink that stops passing packets is called unusable at most Interval + Fall × Haste and twice the usual time of an answer
// after the last reply came in: 1.3 s with the defaults where that is 100 ms or less.
type Plan struct {
	Interval time.Duration // from the beginning of a round to the beginning of the next, while all is well
	Timeout  time.Duration // how long a round waits as long as nobody knows how long answers take
	Checks   time.Duration // how often all targets are asked while all is well, 0 for never
	Targets  []Target
	Quorum   int // how many targets must be heard for a round to be good
	Fall     int // consecutive failed rounds of all targets that make an uplink unusable
	Rise     int // consecutive good rounds that make it usable again

	Loss    float64       // 0–1 of the probes, from which an uplink is degraded until it is half as much; 0 for never
	Latency time.Duration // of answers, the same until it is a quarter less
}

// DefaultInterval has a dead uplink found within 1.3 s where nobody sends.
const DefaultInterval = 700 * time.Millisecond

// DefaultChecks finds out soon enough that a kind of traffic alone does not pass, and costs next to nothing.
const DefaultChecks = 20 * time.Second

// What makes an uplink degraded by default. A satellite in a high orbit is faster.
const (
	DefaultLoss    = 0.2
	DefaultLatency = time.Second
)

// DefaultPlan asks two resolvers of different operators by ICMP and a third one by TCP, so that neither a dead target nor a
// provider that drops ICMP takes the uplink down; for names that everybody knows, and for content. The gateway is not among
// them: it may answer while nothing behind it does.
func DefaultPlan() Plan {
	one, other := netip.AddrFrom4([4]byte{1, 1, 1, 1}), netip.AddrFrom4([4]byte{8, 8, 8, 8})
	return Plan{
		Interval: DefaultInterval,
		Timeout:  time.Second,
		Checks:   DefaultChecks,
		Targets: []Target{
			{Kind: ICMP, Addr: one},
			{Kind: ICMP, Addr: other},
			{Kind: TCP, Addr: netip.AddrFrom4([4]byte{9, 9, 9, 9}), Port: 443},
			{Kind: DNS, Addr: one, Port: 53, Name: "one.one.one.one", Answer: one},
			{Kind: DNS, Addr: other, Port: 53, Name: "dns.google", Answer: other},
			{Kind: HTTP, Name: "cp.cloudflare.com", Port: 80, Path: "/generate_204", Expect: NoContent},
		},
		Quorum: 1,
		Fall:   4,
		Rise:   2,
		Loss:   DefaultLoss, Latency: DefaultLatency,
	}
}

// Of returns the plan with the targets of one family alone; a host that has a name is of both. It needs no more answers than there
// are targets.
func (p Plan) Of(ipv6 bool) Plan {
	all := p.Targets
	p.Targets = nil
	for _, t := range all {
		if t.serves(ipv6) {
			p.Targets = append(p.Targets, t)
		}
	}
	p.Quorum = min(p.Quorum, len(p.Targets))
	return p
}

// Sparing returns the plan for an uplink where bytes cost money: one echo every half minute, less than 0.4 MB a day, and all
// targets only when it is not answered.
func (p Plan) Sparing() Plan {
	p.Interval, p.Checks = max(p.Interval, 30*time.Second), 0
	return p
}

// Validate says what is wrong with a plan, and the bounds that hold.
func (p Plan) Validate() error {
	switch {
	case p.Interval < MinInterval || p.Interval > MaxInterval:
		return fmt.Errorf("%w: interval %s is not between %s and %s", ErrPlan, p.Interval, MinInterval, MaxInterval)
	case p.Timeout < MinTimeout || p.Timeout > MaxTimeout:
		return fmt.Errorf("%w: timeout %s is not between %s and %s", ErrPlan, p.Timeout, MinTimeout, MaxTimeout)
	case p.Timeout > maxOverlap*p.Interval:
		return fmt.Errorf("%w: timeout %s is more than %d times the interval %s", ErrPlan, p.Timeout, maxOverlap, p.Interval)
	case p.Fall < 1 || p.Fall > MaxRounds:
		return fmt.Errorf("%w: fall %d is not between 1 and %d", ErrPlan, p.Fall, MaxRounds)
	case p.Rise < 1 || p.Rise > MaxRounds:
		return fmt.Errorf("%w: rise %d is not between 1 and %d", ErrPlan, p.Rise, MaxRounds)
	case p.Loss < 0 || p.Loss >= 1:
		return fmt.Errorf("%w: loss %v is not between 0 and 1", ErrPlan, p.Loss)
	}
	return p.validateTargets()
}

func (p Plan) validateTargets() error {
	if len(p.Targets) < 1 || len(p.Targets) > MaxTargets {
		return fmt.Errorf("%w: %d targets, 1 to %d are possible", ErrPlan, len(p.Targets), MaxTargets)
	}
	if p.Quorum < 1 || p.Quorum > len(p.Targets) {
		return fmt.Errorf("%w: quorum %d cannot be reached with %d targets", ErrPlan, p.Quorum, len(p.Targets))
	}
	seen := make(map[Target]bool, len(p.Targets))
	for _, t := range p.Targets {
		if err := t.validate(); err != nil {
			return fmt.Errorf("%w: target %s: %w", ErrPlan, t, err)
		}
		if seen[t] {
			return fmt.Errorf("%w: target %s is listed twice, the quorum would count it twice", ErrPlan, t)
		}
		seen[t] = true
	}
	return nil
}

// Link is what a probe must know of the uplink it tests. It is comparable: a socket made for one Link serves no other.
type Link struct {
	Name       string
	Index      int        // of the interface
	Source     netip.Addr // own address that probes carry, of the targets' family
	Gateway    netip.Addr // of the same family, invalid on point-to-point links
	HeaderLess bool       // frames start with the IP header, so there is no ARP
}

// Prober asks one target once by one uplink, and never by another. It returns the round-trip time, or as soon as it is
// certain why there will be none; it returns promptly when ctx ends. It must be safe for concurrent use.
type Prober interface {
	Probe(ctx context.Context, link Link, target Target) (time.Duration, error)
}

// Verdict is what is known of an uplink.
type Verdict struct {
	Known  bool // false until the first good round or Fall failed ones
	Usable bool // packets come back

	Degraded bool          // usable, but a better one is preferred
	Portal   string        // usable, but this URL comes instead of what was asked for: somebody must sign in there
	RTT      time.Duration // smoothed, of the fastest target; 0 until one answered
	Loss     float64       // 0–1, share of probes unanswered within Timeout by the target that answers best
	Reason   string        // why not Usable, or Degraded, one clause for people; else empty
	Good     time.Time     // when the last good round ended, zero before the first
}
