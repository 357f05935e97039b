package policy

import (
	"slices"
	"testing"
)

func TestDecide(t *testing.T) {
	tiers := func(tiers ...int) []Candidate {
		c := candidates(make([]float64, len(tiers))...)
		for i := range c {
			c[i].Capacity, c[i].Tier = 1e8, tiers[i]
		}
		return c
	}
	tests := []struct {
		name   string
		c      []Candidate
		want   []int // indexes of successive decisions
		tier   int
		reason Reason
	}{
		{"one", tiers(4), []int{0, 0}, 4, ReasonOnly},
		{"same tier", tiers(1, 1), []int{0, 1, 0}, 1, ReasonScheduler},
		{"alone in its tier", tiers(2, 2, 1), []int{2, 2}, 1, ReasonOnlyInTier},
		{"lowest tier in between", tiers(2, 1, 2, 1, 1), []int{1, 3, 4, 1}, 1, ReasonScheduler},
		{"negative tiers sort too", tiers(0, -1, -1), []int{1, 2}, -1, ReasonScheduler},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := mustNew(t, "round-robin")
			before := slices.Clone(tt.c)
			for i, index := range tt.want {
				want := Decision{Index: index, Tier: tt.tier, Scheduler: "round-robin", Reason: tt.reason}
				if got, ok := Decide(s, Request{}, tt.c); !ok || got != want {
					t.Fatalf("decision %d = %+v, %v, want %+v", i, got, ok, want)
				}
			}
			if !slices.Equal(tt.c, before) {
				t.Error("Decide left the candidates in another order")
			}
		})
	}
}

// Schedulers that fill one tier after the other see all of them.
func TestDecideAcrossTiers(t *testing.T) {
	c := candidates(100, 100)
	c[0].Tier, c[1].Tier, c[1].Load = 1, 0, 0.9
	want := Decision{Index: 0, Tier: 1, Scheduler: "overflow", Reason: ReasonScheduler}
	if got, _ := Decide(mustNew(t, "overflow"), Request{}, c); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestDecideWithoutCandidates(t *testing.T) {
	if d, ok := Decide(mustNew(t, Default), Request{}, nil); ok {
		t.Fatalf("Decide(nil) = %+v, true", d)
	}
}

func TestReasonStrings(t *testing.T) {
	seen := map[string]bool{}
	for r := ReasonUnknown; r <= ReasonSticky; r++ {
		if r.String() == "" || seen[r.String()] {
			t.Errorf("reason %d has no text of its own: %q", r, r)
		}
		seen[r.String()] = true
	}
	if got := Reason(200).String(); got != "unknown" {
		t.Errorf("Reason(200) = %q", got)
	}
}
