package e2e

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/lab"
)

// TestIPv6HostileFrames is TestHostileFrames over IPv6.
func TestIPv6HostileFrames(t *testing.T) {
	t.Parallel()
	testHostile(t, beginV6(t, lab.Options{}, inTurn), hostileV6)
}

// hostileV6 is hostile for IPv6: headers cut anywhere and changed, chains of extension headers that end too early, repeat
// themselves or lie, pieces that contradict each other, and noise.
func hostileV6(t testing.TB, macs [2]net.HardwareAddr, src, dst netip.AddrPort) (frames [][]byte) {
	link := slices.Concat(macs[1], macs[0], []byte{0x86, 0xdd})
	build := func(chain []extension, body ...gopacket.SerializableLayer) []byte {
		return slices.Concat(link, packetV6(t, ip6(src.Addr(), dst.Addr()), chain, body...))
	}
	udp := udpBetween(src, dst)
	tcp := &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), SYN: true}
	segment := build(nil, tcp, gopacket.Payload(marker))
	bases := [][]byte{
		segment, build(nil, udp, gopacket.Payload(marker)), build([]extension{hopByHopPad, destinationPad}, udp, gopacket.Payload(marker)),
		build([]extension{atomicFragment}, tcp, gopacket.Payload(marker)),
		build(nil, &layers.ICMPv6{TypeCode: unreachableV6(4)}, gopacket.Payload(append(word(0), segment[14:]...))),
		build(nil, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(135, 0)}, gopacket.Payload(append(word(0), dst.Addr().AsSlice()...))),
	}
	for _, base := range bases {
		for n := 14; n < len(base); n++ {
			frames = append(frames, base[:n])
		}
		for at := 14; at < min(len(base), 14+40+24); at++ {
			for _, v := range []byte{0x00, 0x01, 0x2c, 0x3c, 0x60, 0xff} {
				b := bytes.Clone(base)
				b[at] = v
				frames = append(frames, b)
			}
		}
		frames = append(frames, append(bytes.Clone(base), base...))
	}
	for _, chain := range [][]extension{
		slices.Repeat([]extension{destinationPad}, 40), {destinationPad, hopByHopPad}, {atomicFragment, atomicFragment}, {routingUnfinished},
		{{nextDestination, []byte{255, 1, 4, 0, 0, 0, 0}}},
		{{nextFragment, []byte{0, 0, 1, 0, 0, 0, 9}}}, {{nextFragment, []byte{0, 0xff, 0xf9, 0, 0, 0, 9}}},
		{{nextFragment, []byte{0, 0, 8, 0, 0, 0, 9}}},
	} {
		frames = append(frames, build(chain, udp, gopacket.Payload(marker)), build(chain, tcp, gopacket.Payload(marker)))
	}
	return append(frames, changedAtRandom(link, bases)...)
}

// changedAtRandom is noise behind a header of Ethernet, and frames with some bytes changed.
func changedAtRandom(link []byte, bases [][]byte) (frames [][]byte) {
	rng := rand.NewChaCha8([32]byte{67})
	random := rand.New(rng)
	for i := range 1500 {
		b := bytes.Clone(bases[i%len(bases)])
		for range 1 + random.IntN(4) {
			b[14+random.IntN(len(b)-14)] = byte(random.Uint32())
		}
		if i%3 == 0 {
			b = append(bytes.Clone(link), make([]byte, random.IntN(200))...)
			_, _ = rng.Read(b[len(link):]) // documented never to fail
		}
		frames = append(frames, b)
	}
	return frames
}
