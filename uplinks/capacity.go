package uplinks

// DefaultCapacity in bits per second is assumed when nothing is known of any uplink; only equality matters then.
const DefaultCapacity = 100_000_000

// Capacity of an uplink in bits per second, never 0.
type Capacity struct{ Up, Down uint64 }

// Estimate is what is known of a capacity.
type Estimate struct {
	Capacity           // 0 where nothing is known
	Confidence float64 // 1 when it was seen to be reached just now, falling to 0 with the hours; 0 while it is assumed
}

// EffectiveCapacity completes the capacities of list, by ID: what is configured or the link speed, else the largest known
// of the others, so that unknown uplinks count as equal, else DefaultCapacity.
func EffectiveCapacity(list []*Uplink) map[uint8]Capacity {
	var largest Capacity
	for _, u := range list {
		largest.Up, largest.Down = max(largest.Up, u.CapacityUp), max(largest.Down, u.CapacityDown)
	}
	largest.Up, largest.Down = nonZero(largest.Up, DefaultCapacity), nonZero(largest.Down, DefaultCapacity)
	capacities := make(map[uint8]Capacity, len(list))
	for _, u := range list {
		capacities[u.ID] = Capacity{Up: nonZero(u.CapacityUp, largest.Up), Down: nonZero(u.CapacityDown, largest.Down)}
	}
	return capacities
}
