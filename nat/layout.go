// Package nat is the translator: session table, mappings, outside ports, lifetimes, and the rewriting of packets. It is
// pure: time, randomness and what the host holds are given to it.
//
// The table is flat arrays of fixed-width words without Go pointers, so that the same arrays can lie in memory shared
// with a kernel program. Lookups and counting take no lock and allocate nothing; create and delete take one mutex.
package nat

import "sync/atomic"

// The layout below is shared memory layout: a kernel program reads the same words, so nothing here may change alone.
const (
	bucketSlots   = 8  // words in a bucket
	bucketBytes   = 64 // one cache line
	identityBytes = 32 // of a record: keys and translation, read-mostly
	wideBytes     = 64 // of a record of IPv6: its addresses, in a cache line of their own
	countersBytes = 24 // of a record, for each direction
	recordBytes   = identityBytes + 2*countersBytes

	bucketFill = 6 // records for each bucket: a load of 0.75, where two candidate buckets practically never overflow

	region     = 64 // buckets, a page of memory, over which neighbouring ports are spread
	regionFill = region * bucketFill
)

// identity is the part of a record that says what the session is. All but own and the hop is fixed while the record is
// published.
type identity struct {
	addrs   atomic.Uint64 // inside address<<32 | remote address; of IPv6 nothing
	ports   atomic.Uint64 // inside port<<48 | remote port<<32 | outside port<<16 | protocol<<8 | uplink
	outside atomic.Uint64 // outside address<<32 | hop<<24 | generation; of IPv6 without the address
	own     atomic.Uint64 // of Go alone: tick<<34 | link<<12 | reason<<6 | turned<<5 | helped<<4 | state
}

// address is one of IPv6 in host order, the upper half first.
type address [2]atomic.Uint64

// addresses are those of a record of IPv6, fixed while it is published.
type addresses struct {
	inside, remote, outside address
	_                       [2]uint64
}

// counters is what one direction of a session has carried, written by whoever forwards that direction.
type counters struct {
	bytes   atomic.Uint64 // top bits: what a TCP direction has shown
	seen    atomic.Uint32 // tick of the last packet that refreshed the session
	packets atomic.Uint32
	seqEnd  atomic.Uint32 // TCP: highest end of sequence
	ack     atomic.Uint32 // TCP: latest acknowledgement
}

// Flags in counters.bytes.
const (
	finSeen = 1 << (63 - iota)
	rstSeen
	ackSeen

	tcpSeen   = finSeen | rstSeen | ackSeen
	bytesMask = 1<<56 - 1
)

// Masks of identity.ports: a key is a record's word without what only the other side knows.
const (
	outPortsMask = 0xffffffff_0000_ff_00 // of Key
	inPortsMask  = 0x0000ffff_ffff_ff_ff // of InKey
)

// Fields of the lower half of identity.outside.
const (
	hopShift       = 24
	hopMask        = 0xff << hopShift
	generationMask = 1<<hopShift - 1
)

// MaxGeneration is the highest that a Binding may have.
const MaxGeneration = generationMask

// Fields of identity.own. The tick is when the session was opened, or deleted when it is in quarantine; the link is the
// mapping of a live record and the next record of the quarantine or free list otherwise.
const (
	ownStateMask   = 1<<4 - 1
	ownHelped      = 1 << 4 // a kernel program takes it for a state that is none of a hit
	ownTurned      = 1 << 5 // as well
	ownReasonShift = 6
	ownReasonMask  = 1<<6 - 1
	ownLinkShift   = 12
	ownLinkBits    = 22
	ownTickShift   = ownLinkShift + ownLinkBits
	ownTickBits    = 64 - ownTickShift

	ownLinkMask = 1<<ownLinkBits - 1
)

// MaxRecords is the largest possible Config.MaxSessions: the width of a record number in a record's own word.
const MaxRecords = ownLinkMask

func packOwn(s State, reason uint8, link uint32, tick Tick) uint64 {
	return uint64(s) | uint64(reason&ownReasonMask)<<ownReasonShift | uint64(link)<<ownLinkShift | uint64(tick)<<ownTickShift
}

func ownState(w uint64) State  { return State(w & ownStateMask) }
func ownReason(w uint64) uint8 { return uint8(w>>ownReasonShift) & ownReasonMask }
func ownLink(w uint64) uint32  { return uint32(w>>ownLinkShift) & ownLinkMask }

// ownSince is the time from the word's tick, of which only the low bits are kept, to now.
func ownSince(w uint64, now Tick) int32 {
	const spare = 32 - ownTickBits
	return int32((uint32(now)-uint32(w>>ownTickShift))<<spare) >> spare
}
