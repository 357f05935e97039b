package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"tapgw/internal/lab"
)

// The flood's packets: 60 bytes of Ethernet, which is the least, of UDP to the discard port.
const (
	floodLen   = 60
	floodPort  = 9
	floodFirst = 1024    // first source port
	floodPorts = 1 << 15 // source ports per source address
	maxFlood   = 1 << 20 // endpoints
)

// Offsets of fields the program computes.
const (
	offEther   = 12
	offIP      = 14
	offIPSum   = offIP + 10
	offSource  = offIP + 14 // low half of the source address
	offUDP     = offIP + 20
	offUDPSum  = offUDP + 6
	headersEnd = offUDP + 8
)

// How the program is run.
const (
	floodChunk = 1 << 18 // packets of one system call: setting up costs as much as thousands
	liveFrames = 1 << 1  // BPF_F_TEST_XDP_LIVE_FRAMES
	liveBatch  = 64      // packets given to the network stack at once

	xdpDrop int32 = 1
	xdpPass int32 = 2
)

// generator is an XDP program that writes packets of many endpoints in turn. Run in live-frame mode it hands them to the
// network stack as if a device had received them, at a small part of the cost of sending them.
type generator struct {
	program *ebpf.Program
	state   *ebpf.Map // one floodState
	verdict int32
	frame   []byte
}

// floodState is what the program reads for each packet.
type floodState struct {
	Number  uint64 // of the packet
	Verdict uint64 // what becomes of it
}

// newGenerator makes packets of as many endpoints. The verdict is what becomes of them: xdpPass for the network stack, or
// xdpDrop to measure the generator alone.
func newGenerator(endpoints int, verdict int32) (*generator, error) {
	if endpoints < 1 || endpoints > maxFlood {
		return nil, fmt.Errorf("a flood has 1 to %d endpoints, not %d", maxFlood, endpoints)
	}
	state, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make the generator's state (needs root and BPF): %w", err)
	}
	g := &generator{state: state, verdict: verdict, frame: floodFrame()}
	g.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "MIT",
		Instructions: floodProgram(g.frame, state.FD(), endpoints)})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("load the generator: %w", err), state.Close())
	}
	return g, nil
}

func (g *generator) close() error { return errors.Join(g.program.Close(), g.state.Close()) }

// floodFrame is a packet whose source address ends in two zero bytes, whose source port is zero and whose checksums are
// not inverted yet: the program adds those fields.
func floodFrame() []byte {
	f := make([]byte, floodLen)
	copy(f, []byte{2, 0, 0, 0, 0, 0xaa}) // the gateway's LAN port, as the laboratory sets it
	copy(f[6:], []byte{2, 9, 9, 9, 9, 9})
	binary.BigEndian.PutUint16(f[offEther:], 0x0800)
	ip := f[offIP:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], floodLen-offIP)
	source, server := lab.GatewayLANAddr.As4(), lab.ServerAddrs[0].As4()
	copy(ip[12:], source[:2])
	copy(ip[16:], server[:])
	udp := f[offUDP:]
	binary.BigEndian.PutUint16(udp[2:], floodPort)
	binary.BigEndian.PutUint16(udp[4:], floodLen-offUDP)
	return f
}

// sumWords adds up 16-bit words; the result of a header is far from overflowing.
func sumWords(b []byte) (sum int32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += int32(binary.BigEndian.Uint16(b))
	}
	return sum
}

// floodProgram writes every header field of each packet, because frames come back as the gateway left them.
func floodProgram(frame []byte, state, endpoints int) asm.Instructions {
	const data, end, slot, number, source, port = asm.R6, asm.R2, asm.R1, asm.R7, asm.R8, asm.R9
	p := asm.Instructions{
		asm.LoadMem(data, asm.R1, 0, asm.Word),
		asm.LoadMem(end, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R3, data),
		asm.Add.Imm(asm.R3, floodLen),
		asm.JGT.Reg(asm.R3, end, "drop"),
		asm.LoadMapValue(slot, state, 0),
		asm.LoadMem(number, slot, 0, asm.DWord),
		asm.Mov.Reg(asm.R3, number),
		asm.Add.Imm(asm.R3, 1),
		asm.StoreMem(slot, 0, asm.R3, asm.DWord),
		asm.LoadMem(asm.R0, slot, 8, asm.DWord),
		asm.Mod.Imm(number, int32(endpoints)),
		asm.Mov.Reg(port, number),
		asm.And.Imm(port, floodPorts-1),
		asm.Add.Imm(port, floodFirst),
		asm.Mov.Reg(source, number),
		asm.RSh.Imm(source, 15),
		asm.Add.Imm(source, 2), // the LAN's first host and the addresses after it
	}
	for at := int16(0); at < headersEnd; at += 2 {
		value := int64(binary.NativeEndian.Uint16(frame[at:]))
		p = append(p, asm.StoreImm(data, at, value, asm.Half))
	}
	pseudo := sumWords(frame[offIP+12:offUDP]) + 17 + floodLen - offUDP
	p = append(p, storeHalf(data, offSource, source)...)
	p = append(p, storeHalf(data, offUDP, port)...)
	p = append(p, storeSum(data, offIPSum, sumWords(frame[offIP:offUDP]), source)...)
	p = append(p, storeSum(data, offUDPSum, sumWords(frame[offUDP:])+pseudo, source, port)...)
	return append(p,
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("drop"), asm.Return())
}

// storeHalf writes a register in network byte order.
func storeHalf(data asm.Register, at int16, value asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R3, value),
		asm.HostTo(asm.BE, asm.R3, asm.Half),
		asm.StoreMem(data, at, asm.R3, asm.Half),
	}
}

// storeSum writes the inverted one's complement sum of a constant and registers (RFC 1071).
func storeSum(data asm.Register, at int16, sum int32, values ...asm.Register) asm.Instructions {
	p := asm.Instructions{asm.Mov.Imm(asm.R3, sum)}
	for _, v := range values {
		p = append(p, asm.Add.Reg(asm.R3, v))
	}
	for range 2 { // the first folding may carry
		p = append(p, asm.Mov.Reg(asm.R4, asm.R3), asm.RSh.Imm(asm.R4, 16), asm.And.Imm(asm.R3, 0xffff), asm.Add.Reg(asm.R3, asm.R4))
	}
	return append(p, asm.Xor.Imm(asm.R3, 0xffff), asm.HostTo(asm.BE, asm.R3, asm.Half), asm.StoreMem(data, at, asm.R3, asm.Half))
}

// xdpContext is struct xdp_md.
type xdpContext struct{ Data, DataEnd, DataMeta, Ingress, Queue, Egress uint32 }

// set says what becomes of the following packets.
func (g *generator) set(verdict int32) error {
	return g.state.Put(uint32(0), floodState{Verdict: uint64(verdict)})
}

// inject lets the LAN port of the gateway receive packets until ctx ends or limit packets (0 for no limit) went in, and
// returns their number. What is left of a chunk when ctx ends is dropped by the program, which takes no time.
func (g *generator) inject(ctx context.Context, gateway *lab.Namespace, limit int) (offered int, err error) {
	index, err := gateway.Index(lab.DeviceLAN)
	if err != nil {
		return 0, err
	}
	if err := g.set(g.verdict); err != nil {
		return 0, err
	}
	dropped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = g.set(xdpDrop); close(dropped) })
	defer func() {
		if !stop() {
			<-dropped // the caller may close the generator after us
		}
	}()
	options := &ebpf.RunOptions{Data: g.frame, Context: xdpContext{DataEnd: floodLen, Ingress: uint32(index)},
		Repeat: floodChunk, Flags: liveFrames, BatchSize: liveBatch}
	err = gateway.Do(func() error {
		for ctx.Err() == nil && (limit == 0 || offered < limit) {
			if _, err := g.program.Run(options); err != nil {
				return fmt.Errorf("run the generator (live frames need Linux 5.18): %w", err)
			}
			offered += floodChunk
		}
		return nil
	})
	return offered, err
}

// flood measures the packets per second that leave by the uplinks, in millions.
func flood(endpoints int) measure {
	return func(ctx context.Context, p *peer, s settings) ([]float64, error) {
		g, err := newGenerator(endpoints, xdpPass)
		if err != nil {
			return nil, err
		}
		defer g.close()
		ctx, stop := context.WithTimeout(ctx, patience)
		defer stop()
		injected := make(chan error, 1)
		go func() {
			_, err := g.inject(ctx, p.lab.Gateway, 0)
			injected <- err
		}()
		rate, err := counted(ctx, s.warmUp, s.flood, p.forwarded)
		stop()
		return []float64{rate / 1e6}, errors.Join(err, <-injected)
	}
}

// counted reads a counter twice and returns its rate, per second.
func counted(ctx context.Context, after, during time.Duration, counter func() (uint64, error)) (float64, error) {
	if err := sleep(ctx, after); err != nil {
		return 0, err
	}
	begin := time.Now()
	before, err := counter()
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, during); err != nil {
		return 0, err
	}
	n, err := counter()
	return float64(n-before) / time.Since(begin).Seconds(), err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// generatorRate is what the generator offers when nothing is done with its packets, in millions per second.
func generatorRate(ctx context.Context, gateway *lab.Namespace, during time.Duration) (float64, error) {
	g, err := newGenerator(1, xdpDrop)
	if err != nil {
		return 0, err
	}
	defer g.close()
	ctx, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	begin := time.Now()
	offered, err := g.inject(ctx, gateway, 0)
	return float64(offered) / time.Since(begin).Seconds() / 1e6, err
}
