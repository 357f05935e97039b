package policy

import "testing"

func TestStaticShares(t *testing.T) {
	c := candidates(100, 20, 100)
	c[0].Weight, c[1].Weight, c[2].Weight = 3, 2, 1
	tests := map[string][]int{
		"weighted":    {3000, 2000, 1000},
		"round-robin": {2000, 2000, 2000},
		"failover":    {6000, 0, 0},
		"source-hash": {6000, 0, 0}, // one source
	}
	for name, want := range tests {
		for i, got := range tally(mustNew(t, name), c, 6000) {
			if got < want[i]-1 || got > want[i]+1 {
				t.Errorf("%s: candidate %d got %d of 6000, want %d", name, i, got, want[i])
			}
		}
	}
}
