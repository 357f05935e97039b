package nat

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tapgw/internal/packet"
)

// synWith is a SYN with options as they are, padded with zeros, and some data.
func synWith(t testing.TB, flags uint8, options []byte) ([]byte, *packet.Packet) {
	tcp := &layers.TCP{SrcPort: 1, DstPort: 2, SYN: flags&syn != 0, ACK: flags&ack != 0, Window: 100}
	options = append(bytes.Clone(options), make([]byte, -len(options)&3)...)
	// The encoder makes no malformed options: their bytes are written over as many that do nothing.
	for range options {
		tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: layers.TCPOptionKindNop})
	}
	ip := &layers.IPv4{Version: 4, TTL: 9, Protocol: layers.IPProtocolTCP, SrcIP: ipOf(host), DstIP: ipOf(web)}
	_ = tcp.SetNetworkLayerForChecksum(ip)
	frame := append(gopacket.Payload([]byte{0: 2, 6: 2, 12: 8, 13: 0}), serialize(t, ip, tcp, gopacket.Payload("fast open"))...)
	copy(frame[54:], options)
	sumTCP(frame)
	var p packet.Packet
	p.Decode(frame)
	return frame, &p
}

// sumTCP sets the checksum of a segment, by its sum over everything.
func sumTCP(frame []byte) {
	var p packet.Packet
	p.Decode(frame)
	l4 := frame[p.L4 : int(p.L3)+int(p.Len)]
	l4[16], l4[17] = 0, 0
	sum := packet.PseudoHeader(p.Src, p.Dst, protoTCP, len(l4))
	binary.BigEndian.PutUint16(l4[16:], ^packet.Fold(packet.Sum(sum, l4)))
}

func TestClampMSS(t *testing.T) {
	for name, c := range map[string]struct {
		flags         uint8
		options, want []byte
	}{
		"lowered":           {syn, []byte{2, 4, 5, 180}, []byte{2, 4, 5, 80}},
		"in the answer":     {syn | ack, []byte{2, 4, 5, 180}, []byte{2, 4, 5, 80}},
		"never raised":      {syn, []byte{2, 4, 2, 24}, nil},
		"as it is":          {syn, []byte{2, 4, 5, 80}, nil},
		"at an odd place":   {syn, []byte{1, 2, 4, 5, 180, 1, 1, 1}, []byte{1, 2, 4, 5, 80, 1, 1, 1}},
		"behind others":     {syn, []byte{3, 3, 7, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 255, 255}, []byte{3, 3, 7, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 80}},
		"twice":             {syn, []byte{2, 4, 5, 180, 2, 4, 9, 9}, []byte{2, 4, 5, 80, 2, 4, 5, 80}},
		"none":              {syn, nil, nil},
		"no SYN":            {ack, []byte{2, 4, 5, 180}, nil},
		"wrong length":      {syn, []byte{2, 3, 5, 180}, nil},
		"too long":          {syn, []byte{2, 6, 5, 180, 0, 0, 0, 0}, nil},
		"behind the end":    {syn, []byte{0, 0, 0, 0, 2, 4, 5, 180}, nil},
		"behind malformed":  {syn, []byte{7, 0, 0, 0, 2, 4, 5, 180}, nil},
		"behind length one": {syn, []byte{7, 1, 2, 4, 5, 180}, nil},
		"cut":               {syn, []byte{1, 1, 1, 2}, nil},
		"beyond the header": {syn, []byte{1, 2, 4, 5}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if c.want == nil {
				c.want = c.options
			}
			for _, partial := range []bool{false, true} {
				frame, p := synWith(t, c.flags, c.options)
				want, _ := synWith(t, c.flags, c.want)
				if partial { // only the pseudo header is summed
					copy(want[50:52], frame[50:52])
				}
				if ClampMSS(frame, p, 1400, partial); !bytes.Equal(frame, want) {
					t.Errorf("partial %v:\n% x\n% x", partial, frame, want)
				}
			}
		})
	}
	frame, p := synWith(t, syn, []byte{2, 4, 5, 180})
	before := bytes.Clone(frame)
	if ClampMSS(frame, p, mssHeaders, false); !bytes.Equal(frame, before) {
		t.Error("an MTU without room for data changes the option")
	}
}

// FuzzClampMSS: whatever the options are, only bytes of an MSS change, none is raised, and the checksum stays right.
func FuzzClampMSS(f *testing.F) {
	f.Add([]byte{2, 4, 5, 180}, uint16(1400))
	f.Add([]byte{1, 2, 4, 5, 180, 0, 2, 4, 255, 255}, uint16(576))
	f.Add([]byte{7, 0, 2, 4, 5, 180}, uint16(41))
	f.Fuzz(func(t *testing.T, options []byte, mtu uint16) {
		options = options[:min(len(options), 40)&^3]
		frame, p := synWith(t, syn, options)
		before := bytes.Clone(frame)
		ClampMSS(frame, p, int(mtu), false)
		got := bytes.Clone(frame)
		sumTCP(frame)
		if !bytes.Equal(got, frame) {
			t.Fatalf("wrong checksum of % x", got)
		}
		for i := range got {
			if got[i] != before[i] && (i < 54 || i >= 54+len(options)) && i != 50 && i != 51 {
				t.Fatalf("byte %d changed", i)
			}
		}
		for i := 54; i < len(got); i++ {
			if got[i] != before[i] {
				if got[i] > before[i] {
					t.Fatalf("raised by byte %d", i)
				}
				i++ // of a lowered number, the lower byte may be anything
			}
		}
	})
}
