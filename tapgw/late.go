package tapgw

import (
	"time"

	"tapgw/internal/craft"
	"tapgw/internal/packet"
	"tapgw/nat"
)

const (
	maxMoved = 1024 // remembered, by their outside port; a newer one takes the place of an older
	lateFor  = 60 * time.Second
)

// moved are sessions that were bound elsewhere before their SYN was answered: should it be after all, that connection is half
// open at the remote and nobody's here.
type moved [maxMoved]struct {
	key   nat.InKey
	sent  time.Duration // the SYN
	until time.Duration
}

func (m *moved) note(k nat.InKey, sent, now time.Duration) {
	e := &m[int(k.OutsidePort)%maxMoved]
	e.key, e.sent, e.until = k, sent, now+lateFor
}

// find tells when the SYN was sent of a session that moved.
func (m *moved) find(k nat.InKey, now time.Duration) (sent time.Duration, ok bool) {
	e := &m[int(k.OutsidePort)%maxMoved]
	return e.sent, e.key == k && now < e.until
}

// late resets the connection of a session that has moved, when the remote accepts it by the uplink that seemed silent.
func (g *Gateway) late(b []byte, p *packet.Packet, k nat.InKey, now nat.Tick) (res Result, is bool) {
	const both = packet.SYN | packet.ACK
	if p.Kind != packet.TCP || p.TCPFlags&both != both {
		return Result{}, false
	}
	if !g.watch.answeredLate(k, g.cfg.Clock()) || !g.originated.allow(now) {
		return Result{}, false
	}
	reset := craft.Reset(craft.Link{}, b[packet.VnetLen+int(p.L4):packet.VnetLen+int(p.L3)+int(p.Len)], p.Dst.Netip(), p.Src.Netip())
	if reset == nil {
		return Result{}, false
	}
	g.watch.count(LateReset)
	return Result{Verdict: Send, Uplink: k.Uplink, Pieces: [][]byte{reset}}, true
}
