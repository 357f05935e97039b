package uplinks

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestSpecs(t *testing.T) {
	cfg := healthy()
	cfg.Specs = []Spec{
		{Name: "fiber", Interface: "eth1", CapacityUp: 10, CapacityDown: 20, Weight: 3, Tier: 1, Metered: true},
		{Name: "lte", Interface: "wwan0", Disabled: true},
		{Interface: "eth0", Gateway: addr("192.168.1.7"), Addresses: []netip.Addr{addr("192.0.2.1")}},
	}
	tr, w := NewTracker(cfg), twoISPs().eth(5, "eth2").addr(5, "10.0.0.2/8").via(5, "10.0.0.1", 1)
	w.arp(2, "192.168.1.7", 5, 2)
	s, _ := tr.Update(t0, w.Facts)
	if names(s) != "fiber lte eth0 " {
		t.Fatal(names(s))
	}
	if u := byName(t, s, "fiber"); u.Index != 3 || u.CapacityUp != 10 || u.CapacityDown != 20 || u.Weight != 3 || u.Tier != 1 || !u.Metered || u.State != Up {
		t.Errorf("%+v", u)
	}
	if u := byName(t, s, "lte"); u.State != Disabled || u.Weight != 1 {
		t.Errorf("%+v", u)
	}
	if u := byName(t, s, "eth0"); u.Gateway != addr("192.168.1.7") || u.Addresses[0] != addr("192.0.2.1") || u.GatewayMAC[5] != 5 {
		t.Errorf("%+v", u)
	}
}

func TestConfigureKeepsIDs(t *testing.T) {
	tr, w := NewTracker(healthy()), twoISPs()
	tr.Update(t0, w.Facts)
	cfg := healthy()
	cfg.Specs = []Spec{{Name: "dsl", Interface: "eth1"}}
	tr.Configure(cfg)
	s, events := tr.Refresh(t0)
	if u := byName(t, s, "dsl"); u.ID != 1 || u.Generation != 1 || u.State != Up || len(s.Uplinks) != 1 {
		t.Fatalf("%+v", u)
	}
	if kinds(events) != "vanished " {
		t.Fatal(events)
	}
	tr.Configure(healthy())
	s, _ = tr.Refresh(t0)
	if u := byName(t, s, "eth0"); names(s) != "eth0 dsl " || u.Generation != 2 {
		t.Fatalf("%s, reused ID with generation %d", names(s), u.Generation)
	}
}

// An uplink that the configuration no longer names takes no new sessions, and leaves with its last.
func TestLeavingUplinkWaitsForItsSessions(t *testing.T) {
	tr, w, busy := NewTracker(healthy()), twoISPs(), true
	tr.Update(t0, w.Facts)
	only := func(name, device string) TrackerConfig {
		cfg := healthy()
		cfg.Specs = []Spec{{Name: name, Interface: device}}
		cfg.Busy = func(uint8) bool { return busy }
		return cfg
	}
	tr.Configure(only("dsl", "eth1"))
	s, _ := tr.Refresh(t0)
	if u := byName(t, s, "eth0"); u.State != Disabled || u.Reason == "" || u.Generation != 1 {
		t.Fatalf("%+v", u)
	}
	tr.Configure(only("cable", "eth0"))
	s, _ = tr.Refresh(t0)
	if u := byName(t, s, "cable"); u.ID != 0 || u.State != Up || byName(t, s, "dsl").State != Disabled {
		t.Fatalf("back in the configuration: %+v", u)
	}
	busy = false
	s, events := tr.Refresh(t0)
	if names(s) != "cable " || kinds(events) != "vanished " {
		t.Fatalf("%s stay after the last session, %v", names(s), events)
	}
}

// A Spec that takes over the device of an uplink that leaves has it at once.
func TestLeavingUplinkGivesItsDeviceAway(t *testing.T) {
	cfg, w := healthy(), twoISPs()
	cfg.Specs = []Spec{{Name: "old", Interface: "eth1"}, {Name: "wan", Interface: "eth0"}}
	tr := NewTracker(cfg)
	tr.Update(t0, w.Facts)
	cfg.Specs, cfg.Busy = []Spec{{Name: "wan", Interface: "eth1"}}, func(uint8) bool { return true }
	tr.Configure(cfg)
	s, _ := tr.Refresh(t0)
	if u := byName(t, s, "wan"); u.Interface != "eth1" || u.Index == 2 || u.State != Up {
		t.Errorf("%+v", u)
	}
}

func TestIDsRunOut(t *testing.T) {
	tr := NewTracker(healthy())
	for i := range MaxUplinks + 5 {
		w := new(world).p2p(100+i, fmt.Sprintf("ppp%d", i), "ppp").addr(100+i, "203.0.113.1/32")
		tr.Update(t0.Add(time.Duration(i)*time.Second), w.Facts)
	}
	w := new(world).p2p(999, "last", "ppp").addr(999, "203.0.113.1/32")
	s, _ := tr.Update(t0.Add(time.Hour), w.Facts)
	if u := byName(t, s, "last"); u.State != Up || len(s.Uplinks) != MaxUplinks {
		t.Fatalf("%+v of %d", u, len(s.Uplinks))
	}
}

func TestCapacity(t *testing.T) {
	w := twoISPs()
	w.link(2).Speed = 1_000_000_000
	w.p2p(4, "tun0", "tun").addr(4, "203.0.113.1/32")
	w.link(4).Speed = 10_000_000 // what the tun driver says means nothing
	s, _ := NewTracker(healthy()).Update(t0, w.Facts)
	for _, name := range []string{"eth0", "eth1", "tun0"} {
		if c := EffectiveCapacity(s.Uplinks)[byName(t, s, name).ID]; c.Up != 1_000_000_000 || c.Down != 1_000_000_000 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if c := EffectiveCapacity([]*Uplink{{ID: 4}}); c[4].Up != DefaultCapacity || c[4].Down != DefaultCapacity {
		t.Errorf("unknown: %+v", c)
	}
}
