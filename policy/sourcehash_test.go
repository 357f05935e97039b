package policy

import "testing"

// Sources spread in proportion to weight, stay where they are, and move only when their candidate goes.
func TestSourceHash(t *testing.T) {
	const sources = 20_000
	s, c := mustNew(t, "source-hash"), candidates(100, 100, 100)
	c[0].Weight, c[1].Weight, c[2].Weight = 1, 2, 5
	var count [3]int
	moved := 0
	for source := range uint64(sources) {
		r := Request{Source: source}
		was := s.Pick(r, c)
		count[was]++
		c[1].Load, c[1].Rate, c[1].Sessions = float64(source), float64(source), int(source)
		if again := s.Pick(r, c); again != was {
			t.Fatalf("source %d moved from %d to %d", source, was, again)
		}
		if now := s.Pick(r, c[:2]); was < 2 && now != was {
			moved++
		}
	}
	if moved > 0 {
		t.Errorf("%d sources moved when another candidate went", moved)
	}
	for i, weight := range []int{1, 2, 5} {
		if got, want := float64(count[i])/sources, float64(weight)/8; got < want*0.95 || got > want*1.05 {
			t.Errorf("weight %d has %.3f of the sources, want %.3f", weight, got, want)
		}
	}
}
