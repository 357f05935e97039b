package tapgw

// Verdict is what to do with a frame after the gateway has looked at it and, where needed, rewritten it in place.
type Verdict uint8

const (
	// Drop discards the frame; Result.Reason says why.
	Drop Verdict = iota
	// Send transmits the frame by the uplink Result.Uplink, which fills in the Ethernet addresses.
	Send
	// Deliver writes the frame to the TAP, where the host's stack receives it.
	Deliver
	// GiveBack returns the frame to the host's stack as if it had just come in by the uplink.
	GiveBack
	// Ignore leaves the frame alone: the host's stack has a copy of its own.
	Ignore
	// Return returns the frame to the host's stack as if it had just come in by the device of the LAN that it is addressed to.
	Return
	// Hold means that a copy of the fragment is kept until the first of its datagram comes.
	Hold
)

// Reason says why a frame was dropped; each has a counter. The text form is the metric's label.
type Reason uint8

// Reasons of drops.
const (
	NoReason        Reason = iota
	BadPacket              // malformed headers
	NotIPv4                // another ethertype
	BadAddress             // multicast, broadcast, loopback, link-local or unspecified where a host is needed
	UnknownProtocol        // IGMP, or an ICMP type that is not translated
	NoUplink               // no usable uplink for a new session
	TableFull              // nat.max_sessions or nat.max_sessions_ipv6 reached
	NoPort                 // no outside port free on any usable uplink, or without ports no address
	NotSYN                 // TCP without a session that does not open one
	NoSession              // reply to one of our ports without a session
	StaleSession           // its uplink has lost the address the session was bound to
	TooBig                 // larger than the uplink's MTU
	NotReady               // the session's uplink cannot send now
	BadICMP                // ICMP error with a wrong checksum or an unusable quote
	FragmentLost           // fragment whose first part never came, or came too late
	HostSessions           // the inside host has its share of sessions
	HostPorts              // … of outside ports
	HostRate               // it opens sessions too fast
	Filtered               // from a remote that the mapping's filter does not let in
	ForgedICMP             // ICMP error about a session that nobody who saw its packets would send
	HelperWaits            // of a session that a helper reads: not whole, not sound, or something before it is missing
	WrongUplink            // for a mapping of another uplink than the one that received it
	NoRoute                // to a prefix of the inside that the host does not know the way to
	ReservedSubnet         // of a translated prefix, an address without one on the other side (RFC 6296 §4.2)
	ReservedHost           // … as its interface identifier is all zero, or the uplink's own address (RFC 6296 §3.7)
	GroupDown              // no usable uplink in the group that a rule names, and none to ask instead
	ResolverDown           // to a resolver of an ISP whose uplink is not usable, while another has resolvers too
	numReasons
)

var reasonText = [numReasons]string{
	"", "bad_packet", "not_ipv4", "bad_address", "unknown_protocol", "no_uplink", "table_full", "no_port", "not_syn",
	"no_session", "stale_session", "too_big", "uplink_not_ready", "bad_icmp", "fragment_lost",
	"host_sessions", "host_ports", "host_rate", "filtered", "forged_icmp", "helper_waits", "wrong_uplink",
	"no_route", "reserved_subnet", "reserved_host", "group_down", "resolver_down",
}

// String is the label of metrics.
func (r Reason) String() string { return reasonText[r] }

// Result is the outcome for one frame.
type Result struct {
	Verdict Verdict
	turned  bool // of Send: goes to an outside endpoint of ours
	Uplink  uint8
	Reason  Reason
	Hop     uint8  // for Deliver: the session's way to the LAN, 0 when that is the TAP
	Grown   int32  // by how much the frame is longer than it was, within the capacity of its buffer; negative if shorter
	Reply   []byte // a whole buffer for the TAP (virtio header and frame), answering the sender, or nil
	// Pieces are what the frame was cut into, or what answers one that was received, to be sent instead of it: whole buffers of
	// the caller's.
	Pieces [][]byte
	// Released are fragments held before that now go the same way, after the frame: whole buffers of the caller's.
	Released [][]byte
}

// drop counts and returns the reason.
func (g *Gateway) drop(r Reason) Result {
	g.drops[r].Add(1)
	return Result{Reason: r}
}

// Drops calls yield with each reason and the number of frames dropped for it since the start.
func (g *Gateway) Drops(yield func(reason string, n uint64)) {
	for r := Reason(1); r < numReasons; r++ {
		yield(r.String(), g.drops[r].Load())
	}
}
