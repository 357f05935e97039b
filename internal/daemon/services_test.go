package daemon

import (
	"slices"
	"testing"
	"time"

	"tapgw/nat"
	"tapgw/uplinks/wire"
)

// TestServicesAreBounded: programs that open many sockets drive no service out.
func TestServicesAreBounded(t *testing.T) {
	ports := []uint16{53, 51820}
	before := bounded(ports, nil)
	for port := range uint16(2 * wire.MaxFilterServices) {
		ports = append(ports, 40000+port)
	}
	slices.Sort(ports)
	now := bounded(ports, before)
	if len(now) != wire.MaxFilterServices || !slices.Contains(now, 51820) || !slices.Contains(now, 53) || !slices.IsSorted(now) {
		t.Errorf("%d ports: %v", len(now), now)
	}
	pooled, others := split([]uint16{53, 2000, 51820}, []nat.PortRange{{First: 1024, Last: 32767}})
	if !slices.Equal(pooled, []uint16{2000}) || !slices.Equal(others, []uint16{53, 51820}) {
		t.Errorf("pooled %v, others %v", pooled, others)
	}
}

// TestPatience: waits in vain become rare, until one is not in vain.
func TestPatience(t *testing.T) {
	var p patience
	now := time.Unix(1000, 0)
	for _, pause := range []time.Duration{settlePause, 2 * settlePause, 4 * settlePause} {
		if !p.left(now) {
			t.Fatalf("no patience after %s", now.Sub(time.Unix(1000, 0)))
		}
		p.lost(now)
		if p.left(now.Add(pause - 1)) {
			t.Errorf("patience within %s", pause)
		}
		now = now.Add(pause)
	}
	for range 20 {
		p.lost(now)
	}
	if now = now.Add(settlePauseMax); !p.left(now) {
		t.Error("patience is lost for ever")
	}
	p.restored()
	p.lost(now)
	if !p.left(now.Add(settlePause)) {
		t.Error("patience did not come back")
	}
}
