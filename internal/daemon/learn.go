package daemon

import (
	"time"

	"tapgw/nat"
	"tapgw/uplinks"
)

// learner learns what an uplink's device can carry.
type learner struct {
	*uplinks.Learner
	index   int
	assumed uplinks.Capacity
}

// assume has a learner for every uplink: a new one where the device or what is known of it has changed.
func (m *measuring) assume(s *uplinks.Snapshot) {
	capacity := uplinks.EffectiveCapacity(s.Uplinks)
	for _, u := range s.Uplinks {
		l := &m.learners[u.ID]
		if assumed := capacity[u.ID]; l.Learner == nil || l.index != u.Index || l.assumed != assumed {
			*l = learner{uplinks.NewLearner(assumed), u.Index, assumed}
		}
	}
}

// pathOf is what the probes say of an uplink's way to the Internet, of IPv4 where it works.
func pathOf(u *uplinks.Uplink) uplinks.Path {
	h := u.Health
	if !h.Usable {
		h = u.V6.Health
	}
	return uplinks.Path{Known: h.Usable && h.RTT > 0, RTT: h.RTT}
}

const (
	// recordPause is a hundred times what it takes to look at a session, so that this costs a hundredth of a core.
	recordPause = 5 * time.Microsecond
	// leastShare of an uplink's capacity makes a session one that contends for it.
	leastShare = 1000
)

// activity is what the sessions do, as of the last time that all were looked at.
type activity struct {
	list  [uplinks.MaxUplinks]nat.Activity
	fresh bool // the last call of read looked
	next  time.Time
}

// read looks at all sessions, unless that was done so lately that it would cost too much.
func (a *activity) read(t *tables, m *measuring, now time.Time, tick nat.Tick) {
	if a.fresh = !now.Before(a.next); !a.fresh {
		return
	}
	var least [uplinks.MaxUplinks]uint64
	for id := range m.learners {
		if l := m.learners[id].Learner; l != nil {
			c := l.Estimate(now)
			least[id] = min(c.Up, c.Down) / 8 / leastShare
		}
	}
	a.list = [uplinks.MaxUplinks]nat.Activity{}
	records := 0
	t.each(func(_ uplinks.Family, table *nat.Table) { records += table.AddActivity(tick, least[:], a.list[:]) })
	a.next = now.Add(time.Duration(records) * recordPause)
}

func (a *activity) of(uplink uint8) uplinks.Activity {
	return uplinks.Activity{
		Connections: a.list[uplink].Connections, Down: streams(a.list[uplink].In), Up: streams(a.list[uplink].Out),
	}
}

func streams(c nat.Carried) uplinks.Streams {
	return uplinks.Streams{Active: c.Active, New: c.New, Steady: float64(c.Steady) * 8, Bytes: c.Bytes}
}
