package tapgw

import (
	"testing"
	"time"

	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/uplinks"
)

// patient is a world in which somebody watches for answers, in simulated time.
type patient struct {
	*world
	at       time.Duration
	outlook  Outlook
	again    bool // Overdue is to be called
	resent   []resent
	suspects []Suspicion
	doubts   []uint8 // uplinks
}

type resent struct {
	uplink uint8
	frame  []byte
}

func newPatient(t testing.TB) *patient {
	p := &patient{world: newWorld(t), at: time.Second}
	p.g.cfg.Clock = func() time.Duration { return p.at }
	p.g.cfg.Wake = func() { p.again = true }
	p.g.watch.wake = p.g.cfg.Wake
	p.outlook.Send = func(uplink uint8, b []byte) { p.resent = append(p.resent, resent{uplink, clone(b)}) }
	p.outlook.Suspect = func(s Suspicion) { p.suspects = append(p.suspects, s) }
	p.outlook.Doubt = func(uplink uint8) { p.doubts = append(p.doubts, uplink) }
	return p
}

// pass lets time pass, in which the uplinks of a set receive something all the time.
func (p *patient) pass(d time.Duration, heard ...uint8) {
	const step = 25 * time.Millisecond
	for end := p.at + d; p.at < end; {
		for _, id := range heard {
			p.outlook.Heard[id] = p.at
		}
		p.at += min(step, end-p.at)
		if p.again {
			p.again = p.g.Overdue(start, &p.outlook)
		}
	}
}

// dial sends a SYN and returns the outside port and the uplink.
func (p *patient) dial(port uint16, to packet.Addr) (outside uint16, uplink uint8) {
	p.t.Helper()
	return p.open(tcpFrame(p.t, inside, port, to, 80, syn, ""))
}

// accept has a remote answer a SYN that came by an uplink, and returns what becomes of that.
func (p *patient) accept(from packet.Addr, outside uint16, uplink uint8) (Result, []byte) {
	p.t.Helper()
	b := tcpFrame(p.t, from, 80, []packet.Addr{1: wan1, 2: wan2}[uplink], outside, synAck, "")
	return p.in(b, uplink), b
}

func (p *patient) events(e WatchEvent) uint64 { return p.g.watch.counts[e].Load() }

// TestUnansweredSYN goes by another uplink after a while, as the client sent it, and what answers late is reset.
func TestUnansweredSYN(t *testing.T) {
	p := newPatient(t)
	first, uplink := p.dial(4000, server)
	if uplink != 1 {
		t.Fatalf("uplink %d", uplink)
	}
	p.pass(200 * time.Millisecond)
	if len(p.resent) != 0 {
		t.Fatal("sent again at once")
	}
	p.pass(100 * time.Millisecond)
	if len(p.resent) != 1 || p.resent[0].uplink != 2 {
		t.Fatalf("sent again: %+v", p.resent)
	}
	s := look(t, p.resent[0].frame)
	was := look(t, tcpFrame(t, inside, 4000, server, 80, syn, ""))
	if s.tcp == nil || !s.tcp.SYN || s.tcp.ACK || s.src() != wan2 || s.tcp.Seq != was.tcp.Seq {
		t.Errorf("sent again: %v %v", s.ip, s.tcp)
	}
	second := outsidePort(s)
	key := nat.Key{Inside: inside, Remote: server, InsidePort: 4000, RemotePort: 80, Proto: packet.ProtoTCP}
	if tr := p.table.Translation(p.table.FindOut(key)); tr.Uplink != 2 || policy.Reason(tr.Reason) != policy.ReasonRebind {
		t.Errorf("the session is %+v", tr)
	}
	late, b := p.accept(server, first, 1)
	if late.Verdict != Send || late.Uplink != 1 || len(late.Pieces) != 1 {
		t.Fatalf("what came late: %+v", late)
	}
	rst := look(t, late.Pieces[0])
	if rst.tcp == nil || !rst.tcp.RST || rst.tcp.ACK || rst.tcp.Seq != look(t, b).tcp.Ack || outsidePort(rst) != first || rst.src() != wan1 {
		t.Errorf("reset %v %v", rst.ip, rst.tcp)
	}
	if res, _ := p.accept(server, second, 2); res.Verdict != Deliver {
		t.Errorf("the answer by the other uplink: %+v", res)
	}
	p.pass(5 * time.Second)
	if len(p.resent) != 1 || p.again || p.events(Moved) != 1 || p.events(Rescued) != 1 || p.events(LateReset) != 1 {
		t.Errorf("sent %d times; to be looked after: %t; %d late resets", len(p.resent), p.again, p.events(LateReset))
	}
	if _, uplink := p.dial(4001, server); uplink != 1 {
		t.Error("one late answer makes the uplink avoided")
	}
	p.pass(400 * time.Millisecond)
	if len(p.resent) != 1 {
		t.Error("a remote that is slow is not given its time")
	}
}

// TestUnansweredWhileBusy: as long as the uplink receives other things, the remote is given more time, but not so much that the
// client would notice.
func TestUnansweredWhileBusy(t *testing.T) {
	p := newPatient(t)
	p.dial(4000, server)
	p.pass(425*time.Millisecond, 1)
	if len(p.resent) != 0 {
		t.Error("moved early")
	}
	p.pass(50*time.Millisecond, 1)
	if len(p.resent) != 1 {
		t.Error("not moved within half a second")
	}
}

// TestAnsweredStays: what is answered in time is left alone, and teaches how long that takes.
func TestAnsweredStays(t *testing.T) {
	p := newPatient(t)
	for n := range uint16(20) {
		outside, uplink := p.dial(4000+n, server)
		p.pass(30 * time.Millisecond)
		p.accept(server, outside, uplink)
	}
	p.pass(time.Second)
	if len(p.resent) != 0 || p.again {
		t.Errorf("%d sent again", len(p.resent))
	}
	if wait := p.g.watch.sides[1].wait(time.Second); wait != leastWait {
		t.Errorf("waits %s after handshakes of 30 ms", wait)
	}
	outside, _ := p.dial(5000, server)
	p.in(tcpFrame(t, server, 80, wan1, outside, packet.RST|ack, ""), 1)
	p.pass(time.Second)
	if len(p.resent) != 0 {
		t.Error("a refused connection is tried elsewhere")
	}
}

// TestAnsweredUnseen: an answer that the kernel carries is one, although nobody can tell how long it took.
func TestAnsweredUnseen(t *testing.T) {
	p := newPatient(t)
	carry := func(port uint16) {
		ref := p.table.FindOut(nat.Key{Inside: inside, Remote: server, InsidePort: port, RemotePort: 80, Proto: packet.ProtoTCP})
		var answer packet.Packet
		answer.Decode(tcpFrame(t, server, 80, wan1, 1, synAck, "")[packet.VnetLen:])
		p.table.CountIn(ref, start, int(answer.Len), 1, &answer)
	}
	for n := range uint16(2 * quietMisses) {
		p.dial(4000+n, server)
		carry(4000 + n)
		p.pass(500 * time.Millisecond)
	}
	if len(p.resent) != 0 || p.again || len(p.suspects) != 0 {
		t.Errorf("%d sent again, %d suspicions", len(p.resent), len(p.suspects))
	}
	if e := &p.g.watch.sides[1]; e.answered == 0 || e.smoothed != 0 {
		t.Errorf("answered at %s after %s", e.answered, e.smoothed)
	}
	// One that is answered gives its place to the next of the same slot, at once.
	for n := range uint16(maxPending + 1) {
		p.dial(10000+n, server)
		carry(10000 + n)
	}
	if n := p.events(Overlooked); n != 0 {
		t.Errorf("%d were not watched", n)
	}
}

// TestLeftToTheClient are SYNs that are not sent again.
func TestLeftToTheClient(t *testing.T) {
	for name, frame := range map[string][]byte{
		"data":    tcpFrame(t, inside, 4000, server, 80, syn, "fast open"),
		"segment": tcpFrame(t, inside, 4000, server, 80, synAck, ""),
	} {
		p := newPatient(t)
		p.out(frame)
		p.pass(3 * time.Second)
		if len(p.resent) != 0 {
			t.Errorf("%s: sent again", name)
		}
	}
	p := newPatient(t)
	p.ups[1].State = uplinks.Down
	p.publish()
	p.dial(4000, server)
	p.pass(3 * time.Second)
	if len(p.resent) != 0 || p.again {
		t.Error("sent again by an uplink that is down, or by the same")
	}
}

// TestEndpointStays: an endpoint whose mapping serves a session that is answered keeps it.
func TestEndpointStays(t *testing.T) {
	p := newPatient(t)
	outside, uplink := p.dial(4000, server)
	p.accept(server, outside, uplink)
	if again, _ := p.dial(4000, router); again != outside {
		t.Fatal("another mapping")
	}
	p.pass(3 * time.Second)
	if len(p.resent) != 0 {
		t.Error("moved away from its mapping")
	}
}

// TestDeadServer is asked once by another uplink, then no more for a while, and makes no uplink suspect.
func TestDeadServer(t *testing.T) {
	p := newPatient(t)
	for n := range uint16(10) {
		p.dial(4000+n, server)
		p.pass(1200 * time.Millisecond)
	}
	if len(p.resent) != 1 {
		t.Errorf("sent %d times by another uplink", len(p.resent))
	}
	if len(p.suspects) != 0 {
		t.Errorf("suspicions %+v", p.suspects)
	}
}

// TestScan: who tries many dead addresses does not do so by all uplinks.
func TestScan(t *testing.T) {
	p := newPatient(t)
	for n := range uint32(2000) {
		p.dial(uint16(4000+n), packet.IPv4(0xcb010000+n))
		p.pass(5*time.Millisecond, 1, 2)
	}
	if moves := p.events(Moved); moves > moveStock+10*moveRefill+1 {
		t.Errorf("%d moves in 10 s", moves)
	}
	if p.events(Overlooked) > 0 {
		t.Errorf("%d not watched", p.events(Overlooked))
	}
}

// TestSuspicion: two remotes that are silent make the uplink suspect while it receives nothing; new sessions avoid it, until it
// answers.
func TestSuspicion(t *testing.T) {
	p := newPatient(t)
	p.dial(4000, server)
	p.pass(50 * time.Millisecond)
	late, _ := p.dial(4001, router)
	begun := p.at
	for len(p.suspects) == 0 && p.at < begun+time.Second {
		p.pass(25*time.Millisecond, 2)
	}
	if len(p.suspects) != 1 || p.suspects[0] != (Suspicion{Uplink: 1, Unanswered: 2, Answering: NoAnswering}) {
		t.Fatalf("suspicions %+v", p.suspects)
	}
	if took := p.at - begun; took > 300*time.Millisecond {
		t.Errorf("suspected only after %s", took)
	}
	if _, uplink := p.dial(4002, server); uplink != 2 {
		t.Error("a new session goes by the suspect uplink")
	}
	if res, _ := p.accept(router, late, 1); res.Verdict != Send {
		t.Fatalf("what came late: %+v", res)
	}
	if _, uplink := p.dial(4003, server); uplink != 1 {
		t.Error("suspect although it answers")
	}
}

// TestSuspicionOfFamily and others' silence.
func TestSuspicionNeedsAnother(t *testing.T) {
	p := newPatient(t)
	p.ups[1].State = uplinks.Down
	p.publish()
	p.dial(4000, server)
	p.dial(4001, router)
	p.pass(time.Second)
	if len(p.suspects) != 1 {
		t.Errorf("the only uplink: suspicions %+v", p.suspects)
	}
	if _, uplink := p.dial(4002, server); uplink != 1 {
		t.Error("no uplink at all")
	}
}

// TestSuspicionRefuted: what the uplink receives later, as replies to probes, ends a suspicion.
func TestSuspicionRefuted(t *testing.T) {
	p := newPatient(t)
	p.dial(4000, server)
	p.dial(4001, router)
	p.pass(400 * time.Millisecond)
	if !p.g.watch.isSuspect(1) {
		t.Fatal("not suspect")
	}
	p.pass(75*time.Millisecond, 1)
	if p.g.watch.isSuspect(1) {
		t.Error("still suspect")
	}
	p.dial(4002, server)
	p.dial(4003, router)
	p.pass(400 * time.Millisecond)
	if p.g.watch.isSuspect(1) {
		t.Error("suspected again at once, on no more than before")
	}
}

// TestVouch: a probe that was answered since ends the suspicion, one from before does not.
func TestVouch(t *testing.T) {
	p := newPatient(t)
	p.dial(4000, server)
	p.dial(4001, router)
	p.pass(400 * time.Millisecond)
	p.g.Vouch(1, time.Second)
	if !p.g.watch.isSuspect(1) {
		t.Fatal("not suspect")
	}
	if p.g.Vouch(1, 0); p.g.watch.isSuspect(1) {
		t.Error("still suspect")
	}
}

// TestKept: where connections are to wait for their uplink, those that wait for an answer do too.
func TestKept(t *testing.T) {
	p := newPatient(t)
	must(t, p.g.SetPlan(onDown(policy.KeepTCP)))
	p.dial(4000, server)
	p.pass(time.Second)
	if len(p.resent) != 0 {
		t.Error("moved")
	}
}

// TestDeadTCP: what answers UDP is suspect all the same when it answers no SYN and another does.
func TestDeadTCP(t *testing.T) {
	p := newPatient(t)
	var worst time.Duration
	for n := range uint16(10) {
		_, uplink := p.dial(4000+n, packet.IPv4(0xcb007100+uint32(n)))
		begun, sent := p.at, len(p.resent)
		query, by := p.open(udpFrame(t, other, 4000+n, server, 53, "query"))
		p.in(udpFrame(t, server, 53, []packet.Addr{1: wan1, 2: wan2}[by], query, "answer"), by)
		for uplink == 1 && len(p.resent) == sent && p.at < begun+time.Second {
			p.pass(25*time.Millisecond, 1, 2)
		}
		worst = max(worst, p.at-begun)
		if len(p.resent) > sent {
			p.accept(packet.IPv4(0xcb007100+uint32(n)), outsidePort(look(t, p.resent[sent].frame)), 2)
		}
		if n >= deafMisses+1 && uplink == 1 {
			t.Errorf("connection %d still goes by the uplink", n)
		}
	}
	if worst > 500*time.Millisecond {
		t.Errorf("moved only after %s", worst)
	}
	if len(p.suspects) == 0 || p.suspects[0].Answering != 2 {
		t.Errorf("suspicions %+v", p.suspects)
	}
}

// TestWatchAllocatesNothing, neither when a session is opened nor when it is looked after.
func TestWatchAllocatesNothing(t *testing.T) {
	p := newPatient(t)
	p.outlook.Send = func(uint8, []byte) {}
	p.dial(1, server)
	frame := tcpFrame(t, inside, 2, server, 80, syn, "")
	b := clone(frame)
	const sourcePort = packet.VnetLen + packet.EthernetLen + 20
	next := uint16(2)
	n := testing.AllocsPerRun(1000, func() {
		copy(b, frame)
		b[sourcePort], b[sourcePort+1] = byte(next>>8), byte(next)
		next++
		p.out(b)
		p.at += time.Millisecond
		p.g.Overdue(start, &p.outlook)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
