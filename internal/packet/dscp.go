package packet

// DSCP is the differentiated services codepoint of an IP packet (RFC 2474) that p was decoded from.
func (p *Packet) DSCP(frame []byte) uint8 {
	ip := frame[p.L3:]
	if p.IPv6 {
		return ip[0]&0xf<<2 | ip[1]>>6
	}
	return ip[1] >> 2
}
