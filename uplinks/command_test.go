package uplinks

import (
	"errors"
	"testing"
)

// TestMeteredByCommand: what a command says of the costs of an uplink moves it between the tiers, and back.
func TestMeteredByCommand(t *testing.T) {
	for name, c := range map[string]struct {
		spec    Spec
		metered bool
		tier    int
		recover OnRecover
		changed bool
	}{
		"on":                       {Spec{}, true, 1, OnRecoverDrain, true},
		"on, in a higher tier":     {Spec{Tier: 3, OnRecover: OnRecoverMove}, true, 3, OnRecoverMove, true},
		"on, as it is":             {Spec{Metered: true, Tier: 0}, true, 0, OnRecoverDrain, false},
		"off":                      {Spec{Metered: true, Tier: MeteredTier}, false, 0, "", true},
		"off, in a tier of choice": {Spec{Metered: true, Tier: 2}, false, 2, "", true},
		"off, as it is":            {Spec{Tier: 1}, false, 1, "", false},
	} {
		cfg := healthy()
		c.spec.Name = "eth0"
		cfg.Specs = []Spec{c.spec}
		tr := NewTracker(cfg)
		before, _ := tr.Update(t0, twoISPs().Facts)
		if err := tr.SetMetered("eth0", c.metered); err != nil {
			t.Fatal(err)
		}
		s, _ := tr.Refresh(t0)
		u := byName(t, s, "eth0")
		if u.Metered != c.metered || u.Tier != c.tier || u.OnRecover != c.recover || u.MeteredByCommand != c.changed {
			t.Errorf("%s: %+v", name, u)
		}
		if tr.Unmetered("eth0") == c.metered {
			t.Errorf("%s: Unmetered is %v", name, !c.metered)
		}
		if err := tr.UnsetMetered("eth0"); err != nil {
			t.Fatal(err)
		}
		s, _ = tr.Refresh(t0)
		if was, is := byName(t, before, "eth0"), byName(t, s, "eth0"); was.Metered != is.Metered || was.Tier != is.Tier || is.MeteredByCommand {
			t.Errorf("%s, then as configured: %+v", name, is)
		}
	}
}

// TestPrefer: one uplink at most comes before all tiers, also one that no configuration names, and over a new configuration.
func TestPrefer(t *testing.T) {
	tr := NewTracker(healthy())
	tr.Update(t0, twoISPs().Facts)
	ranks := func() (ranks [2]int) {
		s, _ := tr.Refresh(t0)
		return [2]int{byName(t, s, "eth0").Rank(), byName(t, s, "eth1").Rank()}
	}
	for _, step := range []struct {
		prefer string
		want   [2]int
	}{{"eth1", [2]int{0, -1}}, {"eth0", [2]int{-1, 0}}, {"", [2]int{0, 0}}, {"eth1", [2]int{0, -1}}} {
		if err := tr.Prefer(step.prefer); err != nil || ranks() != step.want {
			t.Errorf("%q: %v, %v", step.prefer, ranks(), err)
		}
	}
	cfg := healthy()
	cfg.Specs = []Spec{{Name: "eth0"}, {Name: "eth1", Tier: 2}}
	tr.Configure(cfg)
	if got := ranks(); got != [2]int{0, -1} {
		t.Errorf("after a reload: %v", got)
	}
	if err := tr.Prefer("nonsense"); !errors.Is(err, ErrUnknown) || ranks() != [2]int{0, -1} {
		t.Errorf("%v, %v", err, ranks())
	}
}
