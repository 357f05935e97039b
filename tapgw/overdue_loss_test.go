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

// lossyWorld has servers that answer all, behind a path that loses some.
type lossyWorld struct {
	*patient
	chance *rand.Rand
	way    []answer
}

const (
	lossOfPath = 0.05 // in each direction
	halfHour   = 30 * time.Minute
)

// travel has a packet come to its server, or not, and the answer set out.
func (l *lossyWorld) travel(uplink uint8, b []byte) {
	s := look(l.t, b)
	if out, in := l.chance.Float64(), l.chance.Float64(); min(out, in) < lossOfPath {
		return
	}
	back := tcpFrame(l.t, s.dst(), 80, s.src(), uint16(s.tcp.SrcPort), synAck, "")
	l.way = append(l.way, answer{at: l.at + time.Duration(15+l.chance.IntN(120))*time.Millisecond, frame: back, uplink: uplink})
}

// arrive hands over the answers that are there, and returns by which uplinks.
func (l *lossyWorld) arrive(now nat.Tick) (heard []uint8) {
	for i := range l.way {
		if a := &l.way[i]; !a.already && a.at <= l.at {
			a.already = true
			l.g.Inbound(a.frame, a.uplink, now)
			heard = append(heard, a.uplink)
		}
	}
	for len(l.way) > 0 && l.way[0].already {
		l.way = l.way[1:]
	}
	return heard
}

func testLoss(t *testing.T, gap time.Duration, busy bool, most int) {
	p := &lossyWorld{patient: newPatient(t), chance: rand.New(rand.NewPCG(3, 4))}
	p.ups[1].Tier = 0 // both are used
	must(t, p.g.SetPlan(policy.NewPlan("round-robin")))
	p.publish()
	p.outlook.Send = p.travel
	next, port, connections, now := p.at, uint16(1024), 0, start
	for end := p.at + halfHour; p.at < end; {
		if p.at >= next {
			next += time.Duration(p.chance.ExpFloat64() * float64(gap))
			port++
			connections++
			b := tcpFrame(t, inside, max(port, 1024), packet.IPv4(0xcb007100+p.chance.Uint32N(200)), 80, syn, "")
			if res := p.g.Outbound(b, now); res.Verdict == Send {
				p.travel(res.Uplink, b)
			}
		}
		heard := p.arrive(now)
		if busy {
			heard = append(heard, 1, 2)
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
