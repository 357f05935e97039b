package packet

// PortSet is a set of port numbers.
type PortSet [1 << 16 / 64]uint64

// Add makes a port one of the set.
func (s *PortSet) Add(port uint16) { s[port/64] |= 1 << (port % 64) }

// Has reports whether a port is one of the set.
func (s *PortSet) Has(port uint16) bool { return s[port/64]>>(port%64)&1 != 0 }
