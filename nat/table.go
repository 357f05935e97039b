package nat

import (
	"fmt"
	"sync"
	"sync/atomic"

	"tapgw/internal/packet"
)

const (
	protoICMP   = packet.ProtoICMP
	protoICMPv6 = packet.ProtoICMPv6
	protoTCP    = packet.ProtoTCP
	protoUDP    = packet.ProtoUDP
)

// isICMP reports whether a protocol is ICMP of its family.
func isICMP(proto uint8) bool { return proto == protoICMP || proto == protoICMPv6 }

// direction numbers the two directions of a session.
type direction uint8

const (
	outbound direction = iota
	inbound
)

// Table is the session table of all uplinks. All methods may be called from any goroutine.
type Table struct {
	cfg   Config
	ports []uint16 // the pool of every address, TCP and UDP

	out, in *index
	records []identity
	wide    []addresses   // of each record, where they are of IPv6; nil for IPv4
	counts  [2][]counters // by direction, in separate arrays so that their writers share no cache line

	life   [lifetimes]atomic.Uint32 // ticks
	filter [2]atomic.Uint32         // of UDP and TCP, as type Filter
	spaces [256]atomic.Pointer[[]*space]
	stats  tally

	sweeping sync.Mutex // one sweep at a time
	cursor   uint32     // next record to be looked at; of the sweep

	mu         sync.Mutex // guards all below, and every write but counting
	used       atomic.Uint32
	freeHead   uint32 // list of free records, linked by their own words
	quarantine queue
	sweeps     uint32
	freeArrays []int // of Memory.Ports
	endpoints  *index
	mappings   []*[mappingChunk]mapping
	hosts      map[packet.Addr]usage // by inside address
	limits     Limits
	freeMap    uint32 // list of free mappings
	usedMap    uint32
	peers      peers
	pairs      []uint32 // sessions, by a hash of inside host and remote
	rules      rules
}

// New makes an empty table and reserves the memory of its sessions.
func New(cfg Config) (*Table, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("make session table: %w", err)
	}
	t := &Table{
		cfg: cfg, ports: portList(cfg.Ports), endpoints: newIndex(min(cfg.MaxSessions, fewEndpoints)),
		mappings: []*[mappingChunk]mapping{new([mappingChunk]mapping)}, hosts: make(map[packet.Addr]usage), limits: cfg.Limits,
		pairs: make([]uint32, min(cfg.MaxSessions, maxPairs)),
	}
	if err := t.place(cfg.Memory); err != nil {
		return nil, fmt.Errorf("make session table: %w", err)
	}
	t.SetTimeouts(cfg.Timeouts)
	t.SetFiltering(cfg.Filtering)
	return t, nil
}

// SetTimeouts changes the lifetimes of all sessions, from the next sweep on.
func (t *Table) SetTimeouts(to Timeouts) {
	for i, d := range to.list() {
		t.life[i].Store(ticks(d))
	}
}

// FindOut returns the session of an outbound key.
func (t *Table) FindOut(k Key) Ref {
	w := k.words()
	n, _ := t.out.find(t.hash(w), func(n uint32) bool { return t.matchesOut(n, &w) })
	return Ref(n)
}

// FindIn returns the session of an inbound key.
func (t *Table) FindIn(k InKey) Ref {
	w := k.words()
	n, _ := t.in.find(t.hash(w), func(n uint32) bool { return t.matchesIn(n, &w) })
	return Ref(n)
}

// Translation returns the session r by value.
func (t *Table) Translation(r Ref) Translation { return t.translation(uint32(r)) }

// CountOut counts packets (the segments of a super-packet) that leave by the uplink: counters, last-seen and TCP state.
// Packets of the inside refresh a session, except a RST of one already reset (RFC 7857 §7.1).
func (t *Table) CountOut(r Ref, now Tick, bytes, packets int, p *packet.Packet) {
	t.count(r, now, bytes, packets, p, outbound)
}

// CountIn counts packets that came in by the uplink. They refresh a session too (RFC 4787 REQ-6 allows it: only the
// remote that the inside spoke to can do so), but not one that is closed or reset.
func (t *Table) CountIn(r Ref, now Tick, bytes, packets int, p *packet.Packet) {
	t.count(r, now, bytes, packets, p, inbound)
}

func (t *Table) count(r Ref, now Tick, bytes, packets int, p *packet.Packet, d direction) {
	own := &t.counts[d][r]
	own.bytes.Add(uint64(bytes))
	own.packets.Add(uint32(packets))
	if t.unanswered(r, p, d) || p.Kind == packet.TCP && !t.track(r, p, d) {
		return
	}
	if own.seen.Load() != uint32(now) {
		own.seen.Store(uint32(now))
	}
}

// lastSeen is when the session was last refreshed.
func (t *Table) lastSeen(r uint32) Tick {
	out, in := &t.counts[outbound][r], &t.counts[inbound][r]
	if in.bytes.Load()&refused != 0 && uint8(t.records[r].ports.Load()>>8) == protoUDP {
		return Tick(out.seen.Load())
	}
	return later(Tick(out.seen.Load()), Tick(in.seen.Load()))
}

// expired reports whether a live session last seen then has been idle for longer than its lifetime. A last-seen later than
// now (a packet counted meanwhile) is not idle.
func (t *Table) expired(r uint32, seen, now Tick) bool {
	id := &t.records[r]
	state := ownState(id.own.Load())
	limit := t.life[lifetimeOf(state, uint8(id.ports.Load()>>8))].Load()
	if state == Offered {
		limit = ticks(offerTime)
	}
	idle := int32(now - seen)
	return idle > 0 && uint32(idle) > limit
}
