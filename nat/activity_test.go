package nat

import (
	"testing"
	"time"

	"tapgw/internal/packet"
)

// TestActivity: who carries data is told from who is idle, who only acknowledges, who trickles and who has closed; what ended
// sessions carried is not forgotten.
func TestActivity(t *testing.T) {
	table := newTable(t, nil)
	open := func(port uint16, b Binding) Ref { return mustOpen(t, table, key(protoUDP, port, web, 53), b, after(0)) }
	idle, download, upload, trickle, call := open(1, bind1), open(2, bind1), open(3, bind1), open(4, bind1), open(5, bind2)
	now, datagram := after(10*time.Second), &packet.Packet{Kind: packet.UDP, Proto: protoUDP}
	carry := func(r Ref, out, in int) {
		table.CountOut(r, now, out, 1, datagram)
		table.CountIn(r, now, in, 1, datagram)
	}
	table.CountOut(idle, after(8*time.Second), 1e6, 1, datagram)
	carry(download, 1e4, 1e6)
	carry(upload, 1e6, 1e4)
	carry(trickle, 5000, 5000) // in ten seconds
	carry(call, 2e5, 2e5)
	ended := open(6, bind2)
	carry(ended, 700, 70)
	table.End(table.Translation(ended).Key, now)

	least := make([]uint64, 8)
	least[isp1], least[isp2] = 1000, 1000
	got := make([]Activity, 8)
	table.AddActivity(now, least, got)
	want := map[int]Activity{
		isp1: {Out: Carried{1, 0, 1e5, 1e6 + 1e4 + 1e6 + 5000}, In: Carried{1, 0, 1e5, 1e6 + 1e4 + 5000}},
		isp2: {Out: Carried{1, 0, 2e4, 2e5 + 700}, In: Carried{1, 0, 2e4, 2e5 + 70}},
	}
	for u := range got {
		for _, c := range []*Carried{&got[u].Out, &got[u].In} {
			c.Steady = (c.Steady + 500) / 1000 * 1000 // a lifetime is one of ticks
		}
		if got[u] != want[u] {
			t.Errorf("uplink %d: %+v, want %+v", u, got[u], want[u])
		}
	}
	if n := testing.AllocsPerRun(10, func() { table.AddActivity(now, least, got) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A session younger than a second counts, whatever it has carried yet; one closed by both sides does not.
func TestActivityOfNewAndClosed(t *testing.T) {
	table := newTable(t, nil)
	mustOpen(t, table, key(protoTCP, 1, web, 443), bind1, after(0))
	closed := mustOpen(t, table, key(protoTCP, 2, web, 443), bind1, after(0))
	play(t, table, closed, after(0), step{outbound, syn, 100, 0, TCPOpening}, outSeg(rst, TCPClosed))
	least, got := make([]uint64, 8), make([]Activity, 8)
	least[isp1] = 1e6
	table.AddActivity(after(500*time.Millisecond), least, got)
	if a := got[isp1]; a.Connections != 2 || a.Out.New != 1 || a.In.New != 1 || a.Out.Active != 1 {
		t.Errorf("%+v", a)
	}
}

func BenchmarkActivity(b *testing.B) {
	const sessions = 60_000
	table := newTable(b, func(c *Config) { c.MaxSessions = sessions })
	for i := range uint32(sessions) {
		mustOpen(b, table, key(protoTCP, uint16(i), web, 443), bind1, after(0))
	}
	least, to := make([]uint64, 8), make([]Activity, 8)
	for b.Loop() {
		table.AddActivity(after(time.Second), least, to)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/sessions, "ns/session")
}
