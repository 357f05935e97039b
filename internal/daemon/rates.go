package daemon

import (
	"context"
	"sync/atomic"
	"time"

	"tapgw/api"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/uplinks"
)

const (
	rateSpan  = 500 * time.Millisecond // that a rate is measured over at least
	firstSpan = time.Second            // where nobody has asked lately
	rateLife  = 10 * time.Second       // how long what was counted says something about now
)

// counted is what sessions have carried up to a moment.
type counted struct {
	at     time.Time
	counts [len(uplinks.Families)][]count // by nat.Ref
}

// count is that of one session, which its time of creation tells from others of the same record.
type count struct {
	created nat.Tick
	out, in uint64
}

// set remembers the count of a session.
func (c *counted) set(f uplinks.Family, i *nat.Info) {
	for len(c.counts[f]) <= int(i.Ref) {
		c.counts[f] = append(c.counts[f], count{})
	}
	c.counts[f][i.Ref] = count{i.Created, i.BytesOut, i.BytesIn}
}

// rates are how fast a session has been since, in bits per second; 0 where it has no count.
func (c *counted) rates(f uplinks.Family, i *nat.Info, now time.Time) (out, in float64) {
	if int(i.Ref) >= len(c.counts[f]) {
		return 0, 0
	}
	then, span := c.counts[f][i.Ref], now.Sub(c.at).Seconds()
	if then.created != i.Created || i.BytesOut < then.out || i.BytesIn < then.in || span <= 0 {
		return 0, 0
	}
	return 8 * float64(i.BytesOut-then.out) / span, 8 * float64(i.BytesIn-then.in) / span
}

// sessionRates remembers what was counted the last two times, for as long as somebody asks.
type sessionRates struct{ last atomic.Pointer[[2]*counted] }

// since returns what to measure from, nil where nothing was counted lately.
func (r *sessionRates) since(now time.Time) *counted {
	last := r.last.Load()
	if last == nil {
		return nil
	}
	for _, c := range last {
		if c != nil && now.Sub(c.at) >= rateSpan && now.Sub(c.at) < rateLife {
			return c
		}
	}
	return nil
}

// keep remembers a count for those who ask next, unless somebody else has just made one.
func (r *sessionRates) keep(c *counted) {
	last, next := r.last.Load(), &[2]*counted{c}
	if last != nil && c.at.Sub(last[0].at) < rateSpan {
		return
	}
	if last != nil {
		next[1] = last[0]
	}
	if r.last.CompareAndSwap(last, next) {
		time.AfterFunc(rateLife, func() { r.last.CompareAndSwap(next, nil) })
	}
}

// RatedSessions answers GET /v1/sessions with an order.
func (b backend) RatedSessions(ctx context.Context, yield func(api.Session) bool) {
	from := b.rates.since(time.Now())
	if from == nil {
		from = &counted{at: time.Now()}
		b.eachSession(func(f uplinks.Family, i nat.Info, _ api.Session) bool { from.set(f, &i); return true })
		select {
		case <-ctx.Done():
			return
		case <-time.After(firstSpan):
		}
	}
	now := &counted{at: time.Now()}
	b.eachSession(func(f uplinks.Family, i nat.Info, s api.Session) bool {
		now.set(f, &i)
		s.OutBps, s.InBps = from.rates(f, &i, now.at)
		return yield(s)
	})
	if ctx.Err() == nil { // else not all were counted
		b.rates.keep(now)
	}
}

// owned are the protocols whose sockets have owners that the kernel tells.
var owned = map[string]uint8{"tcp": packet.ProtoTCP, "udp": packet.ProtoUDP}

// Describe adds the program of this host that has a session.
func (b backend) Describe(s *api.Session) {
	proto, has := owned[s.Proto]
	if !has || b.programs == nil || !b.gateway.IsHost(s.Inside.Addr()) {
		return
	}
	if o, ok := b.programs.Find(proto, s.Inside, s.Remote); ok {
		s.Program = o.Executable
	}
}
