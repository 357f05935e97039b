package tapgw

import (
	"time"

	"tapgw/internal/packet"
)

const (
	slowRemotes  = 512 // remembered, by a hash of their address; a newer one takes the place of an older
	slowFor      = 10 * time.Minute
	deadFor      = 30 * time.Second
	slowPatience = 3 // halves of the time that a remote took
)

// slowness is what is known of remotes that answer late, or not at all by any uplink: they say nothing about an uplink.
type slowness [slowRemotes]struct {
	remote packet.Addr
	wait   time.Duration // 0 for no answer at all
	until  time.Duration
}

func (s *slowness) at(a packet.Addr) int {
	return int((a.Hi*0x9e3779b97f4a7c15 ^ a.Lo*0xc2b2ae3d27d4eb4f) >> 32 % slowRemotes)
}

// answeredLate notes how long a remote took.
func (s *slowness) answeredLate(a packet.Addr, took, now time.Duration) {
	e := &s[s.at(a)]
	e.remote, e.wait, e.until = a, took*slowPatience/2, now+slowFor
}

// isDead notes that a remote has not answered by several uplinks.
func (s *slowness) isDead(a packet.Addr, now time.Duration) {
	e := &s[s.at(a)]
	e.remote, e.wait, e.until = a, 0, now+deadFor
}

// of returns how long a remote is to be waited for before an uplink may be to blame; never true for one that is dead.
func (s *slowness) of(a packet.Addr, now time.Duration) (wait time.Duration, never bool) {
	e := &s[s.at(a)]
	if e.remote != a || now >= e.until {
		return 0, false
	}
	return e.wait, e.wait == 0
}
