package fastpath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tapgw/internal/lab/labtest"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/policy"
	"tapgw/tapgw"
	"tapgw/uplinks"
)

const (
	bare      = 0xc6336408 // an outside address whose ports the kernel does not see
	neighbour = 0xc6336409 // not ours
	whole     = 0xc633640a // an inside host's own
	foreign   = 0xc633640b // of another uplink
	foreigner = 0xc633640c // … an inside host's own
	stranger  = 0xcb007163
	service   = 5353 // UDP port of the host
	unsent    = 999  // a port, or identifier, that nothing left by
	shared    = 1000 // TCP port of several mappings
	greProto  = 47
)

// whose is what becomes of a received packet that is no hit.
type whose int

const (
	others whose = iota // goes on as it was
	ours                // goes to Go
	served              // goes on, and Go gets a copy
)

// judging is a rig and the userspace gateway on the same table, with a session of each protocol and a resting port.
type judging struct {
	*rig
	gateway       *tapgw.Gateway
	tcp, udp, ask nat.Translation
	gre, call     nat.Translation
	resting       uint16

	otherUDP, otherAsk, otherGRE nat.Translation // by the other uplink
}

func newJudging(t *testing.T) *judging {
	t.Helper()
	return newJudgingOf(t, uplinks.IPv4)
}

func newJudgingOf(t *testing.T, f uplinks.Family) *judging {
	t.Helper()
	j := &judging{rig: newRigOf(t, f)}
	j.shared.everyUplink(func(w *uplinkWords) { w.upcall.Store(1 << 20) })
	j.gateway = userspace(t, f, j.table)
	labtest.Must(t, j.SetServices([]uint16{service}))
	arrays := j.table.Prepare(uplinkID, []packet.Addr{j.addr(outside), j.addr(bare)})
	binary.NativeEndian.PutUint32(j.memory.Ports[arrays[0].TCP*nat.PortArrayBytes+4*shared:], 2<<30|2)
	arrays[1].TCP, arrays[1].UDP = -1, -1
	arrays = append(arrays, nat.PortArrays{Outside: j.addr(whole), TCP: nat.WholeAddress, UDP: nat.WholeAddress})
	labtest.Must(t, j.SetAddresses(uplinkID, f, arrays))
	j.resting = j.rested(t)
	for i, tr := range []*nat.Translation{&j.tcp, &j.udp, &j.ask} {
		k := nat.Key{Inside: j.addr(0x0a000002), Remote: j.addr(0x08080808), InsidePort: 40000, RemotePort: 443, Proto: packet.ProtoTCP}
		if i > 0 {
			k.Proto = packet.ProtoUDP
		}
		if i > 1 {
			k.Proto, k.RemotePort = j.icmp(), 0
		}
		*tr = j.table.Translation(j.open(t, k))
	}
	j.gre = j.table.Translation(j.open(t, nat.Key{Inside: j.addr(0x0a000002), Remote: j.addr(0x08080808), Proto: greProto}))
	j.call = j.table.Translation(j.open(t, nat.Key{Inside: j.addr(0x0a000002), Remote: j.addr(0x08080809), InsidePort: 7, Proto: greProto}))
	j.openElsewhere(t)
	return j
}

// addr is an address of the rig's family.
func (r *rig) addr(n uint32) packet.Addr { return addressOf(r.family, n) }

// icmp is the protocol's number in the rig's family.
func (r *rig) icmp() uint8 {
	if r.family == uplinks.IPv6 {
		return packet.ProtoICMPv6
	}
	return packet.ProtoICMP
}

// userspace is the gateway as it is without a fast path.
func userspace(t *testing.T, f uplinks.Family, table *nat.Table) *tapgw.Gateway {
	t.Helper()
	meters, demand := new(tapgw.Meters), uplinks.NewDemand()
	for i := range meters {
		meters[i] = uplinks.NewMeter(demand)
	}
	addr := func(n uint32) netip.Addr { return addressOf(f, n).Netip() }
	g := tapgw.New(tapgw.Config{
		IPv6: f == uplinks.IPv6, TAPMAC: tapMAC, GatewayMAC: gatewayMAC, TAPIP: addr(0xc6124901), GatewayIP: addr(0xc6124902),
		Held: func(uint8, packet.Addr, uint16) bool { return false },
	}, table, meters)
	labtest.Must(t, g.SetPlan(policy.NewPlan("failover")))
	side := uplinks.Side{Generation: generation, State: uplinks.Up, GatewayMAC: [6]byte{2}}
	here, there := side, side
	here.Addresses = []netip.Addr{addr(outside), addr(bare), addr(whole)}
	here.Static = []uplinks.Static{{Inside: addr(0x0a000009), Outside: addr(whole)}}
	there.Addresses = []netip.Addr{addr(foreign), addr(foreigner)}
	there.Static = []uplinks.Static{{Inside: addr(0x0a000008), Outside: addr(foreigner)}}
	g.SetUplinks(uplinks.NewSnapshot([]*uplinks.Uplink{
		{ID: uplinkID, Index: 1, MTU: mtu, Side: here}, {ID: otherID, Index: 2, MTU: mtu, Side: there},
	}))
	g.SetServices([]uint16{service}, nil)
	return g
}

// rested opens a session that ends, and returns its outside port.
func (j *judging) rested(t *testing.T) uint16 {
	t.Helper()
	tr := j.table.Translation(j.open(t, nat.Key{Inside: j.addr(1), Remote: j.addr(2), InsidePort: 3, RemotePort: 4, Proto: packet.ProtoUDP}))
	later := nat.Tick(offset) + nat.TickOf(time.Hour)
	j.table.Sweep(later, 0)
	if got := j.table.Owned(uplinkID, packet.ProtoUDP, j.addr(outside), tr.OutsidePort); got != nat.Resting {
		t.Fatalf("the port of an ended session is %v, want resting", got)
	}
	return tr.OutsidePort
}

// arrival is a received packet. Why says why the gateway in userspace would not agree; "" when it must.
type arrival struct {
	name  string
	frame []byte
	want  whose
	why   string
}

const (
	checksMore = "Go looks closer, and gives back what is not ours after all"
	hostDrops  = "Go drops what is malformed, and so does the host"
)

// wide is an address as the programs have it.
func wide(a packet.Addr) fastpathAddr { return fastpathAddr{Hi: a.Hi, Lo: a.Lo} }

func (j *judging) judge(t *testing.T, a arrival) {
	clients := j.maps[fastpathMapClients]
	for id, local := range map[uint32]uint32{uplinkID: outside, otherID: foreign} { // there may be none
		_ = clients.Delete(fastpathClient{Addr: wide(j.addr(stranger)), Local: wide(j.addr(local)), Port: 7, Service: service, Uplink: id})
	}
	code, out := run(t, j.ingress, a.frame, 0)
	wantCode, wantOut := uint32(codeNext), a.frame
	if a.want == ours {
		wantCode, wantOut = codeHit, labelled(a.frame, uplinkID)
	}
	if code != wantCode || !bytes.Equal(out, wantOut) {
		t.Errorf("code %d and\n%x, want %d and\n%x", int32(code), out, int32(wantCode), wantOut)
	}
	var client fastpathClient
	if told := clients.NextKey(nil, &client) == nil; told != (a.want == served) {
		t.Errorf("Go is told of a client: %v, %+v", told, client)
	}
	res := j.gateway.Inbound(append(make([]byte, packet.VnetLen), a.frame...), uplinkID, offset)
	if wanted := res.Verdict != tapgw.Ignore && res.Verdict != tapgw.GiveBack; (wanted == (a.want == ours)) != (a.why == "") {
		t.Errorf("Go's verdict is %d for %q, and a difference is explained by %q", res.Verdict, res.Reason, a.why)
	}
}

// labelled is a frame as it is on the upcall device.
func labelled(frame []byte, tag uint8) []byte {
	f := slices.Clone(frame)
	copy(f, upcallMAC[:])
	if f[12] != 0x86 { // a frame may come without a type
		f = put(12, 8)(put(13, 0)(f))
	}
	return from(secret, tag, f)
}
