package nat

import (
	"time"

	"tapgw/internal/packet"
)

// Activity is what the sessions of one uplink do.
type Activity struct {
	Connections int // live sessions of TCP
	Out, In     Carried
}

// Carried is one direction of an Activity.
type Carried struct {
	Active int    // live sessions that carry data now
	New    int    // of these, those younger than a second
	Steady uint64 // bytes per second that the others have carried over their lives
	Bytes  uint64 // of IP packets, by all sessions since the start
}

const (
	activeFor  = time.Second // after its last packet
	minorShare = 8           // as many bytes in the other direction make those of this one mere acknowledgements
)

// AddActivity adds what the sessions do to the activity of their uplinks. Active is who has been heard of within a second and
// was not closed by both sides, in a direction that has carried at least so many bytes a second ever since; a session younger
// than a second counts as if it had. It looks at every record, of which it returns how many
// there are, and takes no lock.
func (t *Table) AddActivity(now Tick, least []uint64, to []Activity) (records int) {
	for u := range to {
		to[u].Out.Bytes += t.stats.carried[u][outbound].Load()
		to[u].In.Bytes += t.stats.carried[u][inbound].Load()
	}
	for r := uint32(1); r <= t.used.Load(); r++ {
		id := &t.records[r]
		own, uplink := id.own.Load(), int(uint8(id.ports.Load()))
		if ownState(own).Live() && uplink < len(to) {
			t.addSession(r, own, now, least[uplink], &to[uplink])
		}
	}
	return int(t.used.Load())
}

func (t *Table) addSession(r uint32, own uint64, now Tick, least uint64, to *Activity) {
	out, in := t.counts[outbound][r].bytes.Load()&bytesMask, t.counts[inbound][r].bytes.Load()&bytesMask
	if uint8(t.records[r].ports.Load()>>8) == packet.ProtoTCP {
		to.Connections++
	}
	to.Out.Bytes += out
	to.In.Bytes += in
	if ownState(own).finished() || t.lastSeen(r).Since(now) > activeFor {
		return
	}
	age := time.Duration(max(0, ownSince(own, now))) << tickShift
	if out*minorShare >= in {
		to.Out.add(out, age, least)
	}
	if in*minorShare >= out {
		to.In.add(in, age, least)
	}
}

// add counts a session that has carried so many bytes in its life.
func (c *Carried) add(bytes uint64, age time.Duration, least uint64) {
	if age < activeFor {
		c.Active++
		c.New++
		return
	}
	if rate := uint64(float64(bytes) / age.Seconds()); rate >= least {
		c.Active++
		c.Steady += rate
	}
}
