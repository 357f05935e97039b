package nat

import "testing"

// TestLeave: a session that leaves is found both ways until it is bound anew, and stays where that is the same uplink again.
func TestLeave(t *testing.T) {
	table := newTable(t, nil)
	k := key(protoUDP, 1, web, 53)
	r := mustOpen(t, table, k, bind1, after(0))
	if table.Leave(k, bind2.Uplink) || table.Leave(key(protoUDP, 2, web, 53), bind1.Uplink) {
		t.Error("another session leaves")
	}
	if !table.Leave(k, bind1.Uplink) {
		t.Fatal("it does not leave")
	}
	tr := table.Translation(r)
	if tr.State != Leaving || table.FindOut(k) != r || table.FindIn(tr.InKey()) != r {
		t.Errorf("%+v is not found", tr)
	}
	if again := mustOpen(t, table, k, bind1, after(0)); again != r || table.Translation(r).State != Active {
		t.Errorf("session %d, %v", again, table.Translation(r).State)
	}
	table.Leave(k, bind1.Uplink)
	moved := mustOpen(t, table, k, bind2, after(0))
	if moved == r || table.FindOut(k) != moved || table.Translation(r).State.Live() {
		t.Errorf("session %d is %v", moved, table.Translation(r).State)
	}
	tcp := key(protoTCP, 1, web, 80)
	mustOpen(t, table, tcp, bind1, after(0))
	if table.Leave(tcp, bind1.Uplink) {
		t.Error("TCP leaves")
	}
}

// TestLeavingAges: it has the lifetime of any other.
func TestLeavingAges(t *testing.T) {
	table := newTable(t, nil)
	k := key(protoUDP, 1, web, 53)
	mustOpen(t, table, k, bind1, after(0))
	table.Leave(k, bind1.Uplink)
	sweepAt(table, DefaultTimeouts.UDP)
	if table.FindOut(k) == 0 {
		t.Error("it ended early")
	}
	sweepAt(table, DefaultTimeouts.UDP+1<<28)
	if table.FindOut(k) != 0 {
		t.Error("it never ends")
	}
}
