package rtnl

import (
	"errors"
	"testing"
	"time"
)

// A DHCP client that renews puts its metric-0 route back; one that ends removes it, and it must stay removed.
func TestRivalsMetricZero(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	rec := NewReconciler(w.k)
	first := w.apply(rec, tr, c)
	w.defaultVia("wan0", "192.168.1.1", 0)
	second := w.apply(rec, tr, c)
	if len(second.Demoted) != 1 {
		t.Fatalf("demoted %+v", second.Demoted)
	}
	w.expectLeaving(map[[2]string]string{{"", "198.51.100.1"}: "tapgw0"})
	w.must(rec.Cleanup())
	w.must(w.h.LinkDel(w.link("wan0")))
	before := w.objects()
	w.must(rec.Restore(append(first.Demoted, second.Demoted...)))
	w.sameObjects(before)
}

// A new lease may bring another gateway; what stands for the old one must not outlive it.
func TestRivalsNewGateway(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	rec := NewReconciler(w.k)
	first := w.apply(rec, tr, c)
	fresh := w.defaultVia("wan0", "192.168.1.254", 0)
	before := w.read().Routes
	second := w.apply(rec, tr, c)
	s, _ := tr.Update(time.Now(), w.read())
	if g := s.ByID(0).Gateway; g.String() != fresh.Gw.String() {
		t.Errorf("gateway %v of %+v", g, before)
	}
	w.undo(rec, append(first.Demoted, second.Demoted...))
	for _, r := range w.read().Routes {
		if r.Dst.Bits() == 0 && r.Gateway.String() == fresh.Gw.String() && r.Metric == 0 {
			return
		}
	}
	t.Errorf("not restored: %+v", w.read().Routes)
}

func TestRestoreNeverReplacesAnotherRoute(t *testing.T) {
	w := newWorld(t)
	tr, c := gatewayWorld(w)
	rec := NewReconciler(w.k)
	report := w.apply(rec, tr, c)
	w.must(rec.Cleanup())
	w.defaultVia("wan1", "192.168.1.99", 0)
	before := w.objects()
	if err := rec.Restore(report.Demoted); !errors.Is(err, errTaken) {
		t.Errorf("error %v, want %v", err, errTaken)
	}
	w.sameObjects(before)
}
