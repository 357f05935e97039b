// Package capture records packets of sessions where they pass before their translation and after it, also those that the kernel's
// datapath carries.
//
// Packet sockets see what comes in before all programs of BPF, and what goes out behind them. So what this host itself sends is
// missing at the TAP, where the datapath redirects it: there a program in front of the datapath's reports it. What is
// translated back for this host itself goes on from the uplink: a socket for IP sees it there, behind the programs.
package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// Side says on which side of the translation packets pass somewhere.
type Side string

// The sides.
const (
	Before Side = "before translation"
	After  Side = "after translation"
)

// Point is where packets pass.
type Point struct {
	Device     string
	Index      int
	Side       Side
	Note       string // what passes there, "" for all
	HeaderLess bool   // packets start with the IP header
	kind       kind
}

// kind is a way to see packets.
type kind int

const (
	socketBoth   kind = iota // a packet socket for both directions
	socketIn                 // one for what comes in
	socketHost               // one for the IPv4 packets that this host's own stack gets, as programs have left them
	socketHostV6             // one for those of IPv6
	socketOut                // a packet socket for what goes out, behind programs
	programOut               // a program before all others that see what goes out
)

// Packet is one that passed.
type Packet struct {
	Time   time.Time
	Point  *Point
	Data   []byte
	Length int // Data may be less
	at     int // number of the point
}

// Limits bound a capture.
type Limits struct {
	Packets  int
	Duration time.Duration
}

// maxBytes bounds the file, whatever the limits say.
const maxBytes = 256 << 20

// Result is what was written.
type Result struct {
	Before, After int // packets
	Lost          int // packets that came faster than they were read
}

// Chooser decides which packets are written. Choose may be asked again about a packet that is Undecided; what Settle learns in
// between may help.
type Chooser interface {
	Choose(p *Packet) Choice
	Settle(ctx context.Context) error
}

// Choice is what a Chooser says.
type Choice int

// The choices.
const (
	No Choice = iota
	Yes
	Undecided
)

// Capture is open where packets pass. Packets are kept from then on.
type Capture struct {
	points  []Point
	sources []source
	packets chan *Packet
	readers sync.WaitGroup

	mu   sync.Mutex
	lost int
}

// source is one open point.
type source interface {
	// read calls take with every packet until the source is closed.
	read(take func(t time.Time, data []byte, length int)) error
	close() (lost int, err error)
}

// queue is how many packets wait to be written.
const queue = 8192

// Open begins to keep packets in the network namespace of the calling thread.
func Open(points []Point) (*Capture, error) {
	c := &Capture{points: points, packets: make(chan *Packet, queue)}
	for i := range points {
		s, err := open(&points[i])
		if err != nil {
			_, closing := c.close()
			return nil, errors.Join(fmt.Errorf("capture on %s: %w", points[i].Device, err), closing)
		}
		c.sources = append(c.sources, s)
		c.readers.Go(func() { _ = s.read(c.keep(i)) }) // it ends when it is closed
	}
	return c, nil
}

func open(p *Point) (source, error) {
	if p.kind != programOut {
		return openSocket(p)
	}
	program, err := openProgram(p.Index)
	if err == nil {
		return program, nil
	}
	p.kind, p.Note = socketOut, p.Note+", but what the kernel's datapath carries"
	return openSocket(p)
}

// keep queues the packets of one point.
func (c *Capture) keep(at int) func(time.Time, []byte, int) {
	return func(t time.Time, data []byte, length int) {
		p := &Packet{Time: t, Point: &c.points[at], Data: slices.Clone(data), Length: length, at: at}
		select {
		case c.packets <- p:
		default:
			c.mu.Lock()
			c.lost++
			c.mu.Unlock()
		}
	}
}

// close ends the sources, and tells how many packets were lost.
func (c *Capture) close() (lost int, err error) {
	var errs []error
	for _, s := range c.sources {
		n, err := s.close()
		lost, errs = lost+n, append(errs, err)
	}
	c.readers.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return lost + c.lost, errors.Join(errs...)
}

// batch is how long packets are collected before they are looked at, so that what several points saw gets in order.
const batch = 100 * time.Millisecond

// patience is how long a session may take to be known after its first packet.
const patience = 3 * batch

// Run writes the packets that are chosen as pcapng until ctx ends or a limit is reached, and closes the capture.
func (c *Capture) Run(ctx context.Context, w io.Writer, choose Chooser, limits Limits) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, limits.Duration)
	defer cancel()
	f, err := newFile(w, c.points, limits.Packets)
	if err == nil {
		err = c.follow(ctx, f, choose)
	}
	lost, closing := c.close()
	if err == nil && !f.full() {
		err = f.settle(c.batch(f.late), choose) // what came last may be of sessions that are not known yet
	}
	if f == nil {
		return Result{}, errors.Join(err, closing)
	}
	f.result.Lost = lost
	return f.result, errors.Join(err, closing, f.Flush())
}

// follow writes batches until ctx ends or the file is full.
func (c *Capture) follow(ctx context.Context, f *file, choose Chooser) error {
	tick := time.NewTicker(batch)
	defer tick.Stop()
	for !f.full() {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f.settle(c.batch(f.late), choose); err != nil {
			return err
		}
	}
	return nil
}

// batch is what was kept since the last one, behind the packets given, in the order of time.
func (c *Capture) batch(list []*Packet) []*Packet {
	for {
		select {
		case p := <-c.packets:
			list = append(list, p)
		default:
			slices.SortStableFunc(list, func(a, b *Packet) int { return a.Time.Compare(b.Time) })
			return list
		}
	}
}

// file is the pcapng that is being written.
type file struct {
	*pcapgo.NgWriter
	most   int // packets
	bytes  int
	late   []*Packet // undecided
	result Result
}

func newFile(w io.Writer, points []Point, most int) (*file, error) {
	options := pcapgo.DefaultNgWriterOptions
	options.SectionInfo.Application = "tapgw"
	writer, err := pcapgo.NewNgWriterInterface(w, ngInterface(points[0]), options)
	if err != nil {
		return nil, err
	}
	for _, p := range points[1:] {
		if _, err := writer.AddInterface(ngInterface(p)); err != nil {
			return nil, err
		}
	}
	return &file{NgWriter: writer, most: most}, writer.Flush()
}

func ngInterface(p Point) pcapgo.NgInterface {
	i := pcapgo.DefaultNgInterface
	i.Name, i.Description, i.LinkType = p.Device, string(p.Side), layers.LinkTypeEthernet
	if p.Note != "" {
		i.Description += ": " + p.Note
	}
	if p.HeaderLess {
		i.LinkType = layers.LinkTypeRaw
	}
	return i
}

func (f *file) full() bool {
	return f.result.Before+f.result.After >= f.most || f.bytes >= maxBytes
}

// settle writes a batch, after the chooser could learn where it must.
func (f *file) settle(list []*Packet, choose Chooser) error {
	if slices.ContainsFunc(list, func(p *Packet) bool { return choose.Choose(p) == Undecided }) {
		if err := choose.Settle(context.Background()); err != nil {
			return err
		}
	}
	return f.write(list, choose, time.Now().Add(-patience))
}

// write writes what is chosen, and keeps what is undecided and not older than oldest.
func (f *file) write(list []*Packet, choose Chooser, oldest time.Time) error {
	f.late = nil
	for _, p := range list {
		switch choice := choose.Choose(p); {
		case f.full():
			return f.Flush()
		case choice == Undecided && p.Time.After(oldest):
			f.late = append(f.late, p)
		case choice == Yes:
			if err := f.add(p); err != nil {
				return fmt.Errorf("write a packet: %w", err)
			}
		}
	}
	return f.Flush()
}

func (f *file) add(p *Packet) error {
	f.bytes += len(p.Data)
	if p.Point.Side == Before {
		f.result.Before++
	} else {
		f.result.After++
	}
	return f.WritePacket(gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(p.Data), Length: p.Length, InterfaceIndex: p.at}, p.Data)
}
