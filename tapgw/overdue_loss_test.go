package tapgw

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
)

// TestLossIsNoSilence: half an hour at 5 % loss in each direction, on a busy gateway and on a quiet one.
func TestLossIsNoSilence(t *testing.T) {
	for name, c := range map[string]struct {
		gap       time.Duration // between new connections, on average
		busy      bool
		suspicion int // at most
	}{"busy": {50 * time.Millisecond, true, 0}, "seldom": {5 * time.Second, false, 3}} {
		t.Run(name, func(t *testing.T) { testLoss(t, c.gap, c.busy, c.suspicion) })
	}
}

// answer is one on its way.
type answer struct {
	at      time.Duration
	frame   []byte
	uplink  uint8
	already bool
}

func testLoss(t *testing.T, gap time.Duration, busy bool, most int) {
	const loss, halfHour = 0.05, 30 * time.Minute
	p, r := newPatient(t), rand.New(rand.NewPCG(3, 4))
	p.ups[1].Tier = 0 // both are used
	must(t, p.g.SetPlan(policy.NewPlan("round-robin")))
	p.publish()
	var way []answer
	now := start
	travel := func(b []byte, uplink uint8) {
		s := look(t, b)
		if out, in := r.Float64(), r.Float64(); min(out, in) < loss {
			return
		}
		to := s.src()
		back := tcpFrame(t, s.dst(), 80, to, uint16(s.tcp.SrcPort), synAck, "")
		way = append(way, answer{at: p.at + time.Duration(15+r.IntN(120))*time.Millisecond, frame: back, uplink: uplink})
	}
	p.outlook.Send = func(uplink uint8, b []byte) { travel(b, uplink) }
	next, port, connections := p.at, uint16(1024), 0
	for end := p.at + halfHour; p.at < end; {
		if p.at >= next {
			next += time.Duration(r.ExpFloat64() * float64(gap))
			port++
			connections++
			b := tcpFrame(t, inside, max(port, 1024), packet.IPv4(0xcb007100+r.Uint32N(200)), 80, syn, "")
			if res := p.g.Outbound(b, now); res.Verdict == Send {
				travel(b, res.Uplink)
			}
		}
		var heard []uint8
		if busy {
			heard = []uint8{1, 2}
		}
		for i := range way {
			if a := &way[i]; !a.already && a.at <= p.at {
				a.already = true
				p.g.Inbound(a.frame, a.uplink, now)
				heard = append(heard, a.uplink)
			}
		}
		for len(way) > 0 && way[0].already {
			way = way[1:]
		}
		p.pass(5*time.Millisecond, heard...)
		now = start + nat.TickOf(p.at)
		if connections%500 == 0 {
			p.table.Sweep(now, 0)
		}
	}
	t.Logf("%d connections, %d suspicions, %d moved, %d rescued, %d late resets, %d overlooked", connections, len(p.suspects),
		p.events(Moved), p.events(Rescued), p.events(LateReset), p.events(Overlooked))
	if len(p.suspects) > most {
		t.Errorf("suspicions %+v", p.suspects)
	}
}

func BenchmarkOverdue(b *testing.B) {
	for _, n := range []uint16{0, 100, 2000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := newPatient(b)
			for port := range n {
				p.dial(1024+port, server)
			}
			for b.Loop() {
				p.g.Overdue(start, &p.outlook)
			}
		})
	}
}
