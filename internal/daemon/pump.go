package daemon

import (
	"errors"
	"math/bits"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tapgw/internal/metrics"
	"tapgw/internal/packet"
	"tapgw/nat"
	"tapgw/tapgw"
	"tapgw/tapgw/tapdev"
	"tapgw/uplinks"
	"tapgw/uplinks/wire"
	"tapgw/uplinks/wire/batchio"
)

// How many frames a reader takes at once: enough to share one send among small packets, while large ones end a batch by
// their bytes. First packets are few.
const (
	batch      = 64
	firstBatch = 16 // where the kernel carries known sessions
)

// pumps move frames between the TAP and the uplinks. Each reader has a goroutine and a thread of its own; nothing is
// handed from one to another.
type pumps struct {
	gateway *tapgw.DualStack
	clock   clock
	tap     atomic.Pointer[tapdev.Device]
	upcall  atomic.Pointer[tapdev.Upcall]
	turned  atomic.Pointer[[]uplinks.Link] // devices of the LAN by their number
	ports   [uplinks.MaxUplinks]atomic.Pointer[wire.Port]
	called  bool          // the kernel carries known sessions, and hands the others' frames over by upcall
	lost    atomic.Uint64 // frames the TAP or the upcall device did not take

	patience patience              // of settle
	failure  atomic.Pointer[error] // of a reader of the TAP; nothing goes on without it
}

// worker is what one reading goroutine needs; it allocates nothing after newWorker but a sender per new port.
type worker struct {
	*pumps
	number  int // of the queues that it reads or writes
	bufs    [][]byte
	sizes   []int
	senders [uplinks.MaxUplinks]*wire.Sender
	from    [uplinks.MaxUplinks]*wire.Port // the port each sender belongs to
	used    []uint8                        // uplinks with frames queued
	queued  [uplinks.MaxUplinks]bool
}

func (p *pumps) newWorker(number int) *worker {
	n := batch
	if p.called {
		n = firstBatch
	}
	return &worker{
		pumps: p, number: number, bufs: batchio.Buffers(n), sizes: make([]int, n), used: make([]uint8, 0, uplinks.MaxUplinks),
	}
}

// readerNice lets readers that carry everything run before ordinary programs, as the kernel's forwarding does. New
// connections per second grew by a tenth; at -20 they did not, and a flood would leave programs nothing. Where the kernel
// carries known sessions it does not help.
const readerNice = -10

// ownThread gives the goroutine of a reader a thread that ends with it. Without CAP_SYS_NICE it runs like any other.
func (p *pumps) ownThread() {
	runtime.LockOSThread()
	punctual()
	if p.called {
		return
	}
	const zero = 20 // getpriority(2) returns 20 less the nice value
	if now, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err == nil && zero-now > readerNice {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, readerNice)
	}
}

// stay binds the thread of a reader of first packets to the processors whose frames come to its queue, where waking it up
// costs less than on another. Where none of them is allowed, it may run on all.
func (p *pumps) stay(number, of int) {
	var all, own unix.CPUSet
	if !p.called || of == 1 || unix.SchedGetaffinity(0, &all) != nil {
		return
	}
	for cpu := number; cpu < len(all)*bits.UintSize; cpu += of {
		if all.IsSet(cpu) {
			own.Set(cpu)
		}
	}
	_ = unix.SchedSetaffinity(0, &own)
}

// runTAP carries frames from a queue of the TAP until the device is closed or gone.
func (p *pumps) runTAP(tap *tapdev.Device, number int) error {
	q := tap.Queue(number)
	return p.runQueue(tap, number, func(w *worker, frame []byte, now nat.Tick) { w.outbound(q, frame, now) })
}

// runQueue reads a queue of a device of ours until that is closed or gone.
func (p *pumps) runQueue(device *tapdev.Device, number int, take func(w *worker, frame []byte, now nat.Tick)) error {
	p.ownThread()
	p.stay(number, len(device.Queues()))
	w, q := p.newWorker(number), device.Queue(number)
	for {
		n, err := q.ReadBatch(w.bufs, w.sizes)
		if err != nil {
			return ignoreClosed(err)
		}
		now := w.clock.tick()
		for i := range n {
			take(w, w.bufs[i][:w.sizes[i]], now)
		}
		w.flush()
	}
}

func (w *worker) outbound(q *tapdev.Queue, frame []byte, now nat.Tick) {
	res := w.gateway.Outbound(frame, now)
	frame = frame[:len(frame)+int(res.Grown)]
	if res.Verdict == tapgw.Send {
		if res.Pieces == nil {
			w.send(res.Uplink, frame)
		}
		for _, f := range res.Pieces {
			w.send(res.Uplink, f)
		}
		for _, f := range res.Released {
			w.send(res.Uplink, f)
		}
	}
	if res.Verdict == tapgw.Deliver || res.Verdict == tapgw.Return {
		w.received(0, res, frame) // no uplink's
		for _, f := range res.Released {
			w.received(0, res, f)
		}
	}
	if res.Reply != nil && q.Write(res.Reply) != nil {
		w.lost.Add(1)
	}
}

// send queues a frame on the worker's own sender of the uplink.
func (w *worker) send(id uint8, frame []byte) {
	port := w.ports[id].Load()
	if port == nil {
		w.lost.Add(1)
		return
	}
	if w.from[id] != port {
		w.flush() // what is queued belongs to the port before
		w.from[id], w.senders[id] = port, port.Sender()
	}
	w.senders[id].Queue(frame)
	if !w.queued[id] {
		w.queued[id] = true
		w.used = append(w.used, id)
	}
}

// flush sends everything queued; what a dead uplink loses is counted by its port.
func (w *worker) flush() {
	for _, id := range w.used {
		_ = w.senders[id].Flush()
		w.queued[id] = false
	}
	w.used = w.used[:0]
}

// runUplink carries frames that an uplink received to the TAP until the port is closed. Each uplink writes to a queue of
// its own where there are enough.
func (p *pumps) runUplink(id uint8, port *wire.Port) error {
	p.ownThread()
	w := p.newWorker(int(id))
	for {
		n, err := port.ReadBatch(w.bufs, w.sizes)
		if errors.Is(err, wire.ErrDown) {
			continue // reading on waits for the device to come back
		}
		if err != nil {
			return ignoreClosed(err)
		}
		now := w.clock.tick()
		for i := range n {
			w.inbound(id, w.bufs[i][:w.sizes[i]], now)
		}
		w.flush()
	}
}

func (w *worker) inbound(id uint8, frame []byte, now nat.Tick) {
	w.handed(id, w.gateway.Inbound(frame, id, now), frame)
}

// handed takes a frame, and those it releases, where the verdict wants them.
func (w *worker) handed(id uint8, res tapgw.Result, frame []byte) {
	w.received(id, res, frame[:len(frame)+int(res.Grown)])
	for _, f := range res.Released {
		w.received(id, res, f)
	}
}

// received takes a frame of an uplink where the verdict wants it.
func (w *worker) received(id uint8, res tapgw.Result, frame []byte) {
	var err error
	switch res.Verdict {
	case tapgw.Deliver:
		err = w.deliver(res.Hop, frame)
	case tapgw.GiveBack:
		err = w.upcall.Load().GiveBack(w.number, id, frame)
	case tapgw.Return:
		err = w.returnToLAN(frame)
	case tapgw.Send:
		for _, f := range res.Pieces {
			w.send(res.Uplink, f)
		}
	case tapgw.Drop, tapgw.Ignore, tapgw.Hold:
	}
	if err != nil {
		w.lost.Add(1)
	}
}

func (w *worker) deliver(hop uint8, frame []byte) error {
	if hop != 0 {
		return w.upcall.Load().ToLAN(w.number, hop, frame)
	}
	tap := w.tap.Load()
	if tap == nil {
		return net.ErrClosed
	}
	return tap.Queue(w.number).Write(frame)
}

// runUpcall carries frames that the fast path hands over by a queue, until the device is closed or gone.
func (p *pumps) runUpcall(upcall *tapdev.Upcall, number int) error {
	return p.runQueue(upcall.Device, number, func(w *worker, frame []byte, now nat.Tick) { w.upcalled(upcall, frame, now) })
}

// upcalled handles a frame of which nobody else has a copy, but those that are marked so.
func (w *worker) upcalled(upcall *tapdev.Upcall, frame []byte, now nat.Tick) {
	switch from, id := upcall.Origin(frame); from {
	case tapdev.FromUplink:
		res := w.gateway.Inbound(frame, id, now)
		if res.Verdict == tapgw.Ignore {
			res.Verdict = tapgw.GiveBack
		}
		w.handed(id, res, frame)
	case tapdev.FromLAN:
		if tap := w.tap.Load(); tap != nil {
			w.outbound(tap.Queue(w.number), frame, now)
		}
	case tapdev.Copy:
		w.gateway.Request(frame, id, now)
	case tapdev.Nowhere:
	}
}

// traffic is what an uplink's present sockets have moved, and dropped by which reason.
func (p *pumps) traffic(id uint8) metrics.Traffic {
	port := p.ports[id].Load()
	if port == nil {
		return metrics.Traffic{}
	}
	s := port.Stats()
	return metrics.Traffic{
		RxPackets: s.Received, RxBytes: s.ReceivedBytes, TxPackets: s.Sent, TxBytes: s.SentBytes,
		Dropped: map[string]uint64{
			"queue_full": s.DroppedFull, "too_big": s.DroppedTooBig, "refused": s.DroppedRefused, "down": s.DroppedDown,
			"overflow": s.Overflow,
		},
	}
}

// ignoreClosed makes the ordinary end of a reader no error.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, tapdev.ErrGone) {
		return nil
	}
	return err
}

// heldPorts answers whether a socket of the host has a port of an uplink's address.
type heldPorts struct {
	cache   wire.HeldCache
	sockets atomic.Pointer[wire.Sockets] // as last listed
}

// listed is for ports about to be taken: asking the kernel each time cost 21 µs of a new connection. A socket that it
// misses gets its packets all the same, as those without a session are judged by recent.
func (h *heldPorts) listed(proto uint8, addr packet.Addr, port uint16) bool {
	s := h.sockets.Load()
	switch {
	case s == nil:
		return wire.HeldBySocket(proto, addr.Netip(), port)
	case proto == packet.ProtoTCP:
		return s.TCP.Has(port)
	}
	return s.UDP.Has(port)
}

// recent may repeat an answer for a second: for packets, of which there can be a flood.
func (h *heldPorts) recent(proto uint8, addr packet.Addr, port uint16) bool {
	return h.cache.Held(proto, addr.Netip(), port, time.Now())
}
