package api

import "cmp"

// The orders of Filter.Sort.
const (
	SortRate  = "rate"  // the fastest first
	SortBytes = "bytes" // those that moved most first
	SortAge   = "age"   // the youngest first
)

// MaxSorted bounds a sorted list.
const MaxSorted = 1000

// ByBytes orders sessions as SortBytes says; those that moved as much by who talks to whom.
func ByBytes(x, y Session) int {
	return cmp.Or(
		cmp.Compare(y.BytesIn+y.BytesOut, x.BytesIn+x.BytesOut),
		x.Inside.Compare(y.Inside), x.Remote.Compare(y.Remote), cmp.Compare(x.Proto, y.Proto),
	)
}
