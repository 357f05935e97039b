package e2e

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// half is one of the two laboratories: a LAN host behind the gateway, or behind the kernel's masquerade.
type half struct {
	t testing.TB
	*lab.Topology
	lan *lab.Namespace
}

// step is something that hosts do, with all its choices made; it returns what both ends saw of it.
type step struct {
	name string
	do   func(s half) (seen string, err error)
}

// makers draw steps of a kind.
var makers = []func(r *rand.Rand) step{
	transferStep, refusedStep, headerStep, datagramStep, pingStep, expiringStep, fragmentStep, tooBigStep, outsideErrorStep, insideErrorStep,
	synStep, strayStep, timestampStep,
}

// lossLimit is how long something that may never come is waited for; busy machines get more tries, not more time.
const (
	lossLimit = time.Second
	tries     = 3
)

// TestDifferential has hosts do the same things behind the gateway and behind the kernel's masquerade, and compares what both ends
// see. DIFFERENTIAL_STEPS and DIFFERENTIAL_SEED make it longer, and repeat it.
func TestDifferential(t *testing.T) {
	const uplinkMTU = 1400
	o := lab.Options{Uplinks: []lab.UplinkOptions{{MTU: uplinkMTU}, {}}}
	w := begin(t, o, preferFirst)
	kernel := labtest.Build(t, o)
	labtest.Servers(t, kernel)
	labtest.Must(t, kernel.Masquerade())
	for _, ns := range []*lab.Namespace{w.lan, kernel.Hosts[0].Namespace} {
		labtest.Must(t, ns.Sysctl("net/ipv4/icmp_ratelimit", "0"))
	}
	sides := [2]half{{t, w.Topology, w.lan}, {t, kernel, kernel.Hosts[0].Namespace}}

	seed := number(t, "DIFFERENTIAL_SEED", 1)
	random := rand.New(rand.NewPCG(seed, seed))
	steps := int(number(t, "DIFFERENTIAL_STEPS", 150))
	for i := range steps {
		s := makers[i%len(makers)](random)
		if ours, theirs := s.compare(sides); ours != theirs {
			t.Errorf("step %d of seed %d, %s:\n  gateway: %s\n  kernel:  %s", i, seed, s.name, ours, theirs)
		} else {
			t.Logf("%s: %s", s.name, ours)
		}
	}
}

// number is a variable of the environment.
func number(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 32)
	labtest.Must(t, err)
	return n
}

// compare takes a step on both sides until they have seen the same.
func (s step) compare(sides [2]half) (ours, theirs string) {
	for range tries {
		var running sync.WaitGroup
		for i, seen := range []*string{&ours, &theirs} {
			running.Go(func() {
				var err error
				if *seen, err = s.do(sides[i]); err != nil {
					*seen += " " + kind(err)
				}
			})
		}
		running.Wait()
		if ours = ownErrors.ReplaceAllString(ours, "from 10.0.0.1 about $1 TTL 64"); ours == theirs {
			return ours, theirs
		}
	}
	return ours, theirs
}

// ownErrors is the difference that is meant (docs/rfc-compliance.md): errors of the gateway itself come from the address on the
// TAP, when the host has counted as a hop.
var ownErrors = regexp.MustCompile(`from 198\.18\.73\.2 about (\S+ → \S+) TTL 63`)

// kind names an error without what differs by chance.
func kind(err error) string {
	var code syscall.Errno
	var late net.Error
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, io.EOF):
		return "eof"
	case errors.As(err, &code):
		return code.Error()
	case errors.As(err, &late) && late.Timeout():
		return "nothing"
	}
	return err.Error()
}

// anyPort is an address with any free port.
func anyPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 0) }

// The ways in which a TCP connection may end.
const (
	insideFirst = iota // closes its half, and the other goes on sending
	outsideFirst
	bothAtOnce
	insideResets
	outsideResets
	endings
)

// transferStep moves bytes both ways over a TCP connection and ends it.
func transferStep(r *rand.Rand) step {
	ending, sizes := r.IntN(endings), [2]int{1 + r.IntN(1<<r.IntN(20)), 1 + r.IntN(1<<r.IntN(20))}
	return step{fmt.Sprintf("TCP, %d bytes out, %d in, ending %d", sizes[0], sizes[1], ending), func(s half) (string, error) {
		l, err := s.Internet.Listen("tcp4", anyPort(lab.ServerAddrs[0]).String())
		if err != nil {
			return "", err
		}
		defer l.Close()
		inside, err := s.lan.Dial(s.t.Context(), "tcp4", l.Addr().String())
		if err != nil {
			return "dial", err
		}
		defer inside.Close()
		outside, err := l.Accept()
		if err != nil {
			return "accept", err
		}
		defer outside.Close()
		deadline := time.Now().Add(patience)
		if err := errors.Join(inside.SetDeadline(deadline), outside.SetDeadline(deadline)); err != nil {
			return "", err
		}
		from := outside.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		return fmt.Sprintf("from %s: %s", from, converse(inside.(*net.TCPConn), outside.(*net.TCPConn), sizes, ending)), nil
	}}
}

// converse moves sizes bytes and ends the connection; it tells what each end got.
func converse(inside, outside *net.TCPConn, sizes [2]int, ending int) string {
	var running sync.WaitGroup
	var said [2]string
	play := func(i int, c *net.TCPConn, waits, resets bool) {
		running.Go(func() {
			said[i] = speak(c, sizes[i], sizes[1-i], waits, resets)
		})
	}
	play(0, inside, ending == outsideFirst || ending == outsideResets, ending == insideResets)
	play(1, outside, ending == insideFirst || ending == insideResets, ending == outsideResets)
	running.Wait()
	return fmt.Sprintf("inside %s, outside %s", said[0], said[1])
}

// speak sends n bytes and reads until the end. Who waits sends only after it has read what the other has to say; who resets does
// so when both have sent all.
func speak(c *net.TCPConn, n, others int, waits, resets bool) string {
	first, rest, err := int64(0), int64(0), error(nil)
	if waits {
		first, err = io.CopyN(io.Discard, c, int64(others))
	}
	var reading sync.WaitGroup
	if !waits && !resets {
		reading.Go(func() { rest, err = io.Copy(io.Discard, c) })
	}
	_, failed := c.Write(make([]byte, n))
	switch {
	case failed != nil:
	case resets:
		first, err = io.CopyN(io.Discard, c, int64(others))
		failed = errors.Join(c.SetLinger(0), c.Close())
	default:
		_ = c.CloseWrite() // refused where the reset of the other was faster
	}
	reading.Wait()
	if waits && err == nil {
		rest, err = io.Copy(io.Discard, c)
	}
	if waits && failed != nil { // a reset is met by what comes first
		err = failed
	}
	return fmt.Sprintf("%d bytes, %s", first+rest, kind(err))
}

// refusedStep asks for what nobody serves, now and then at an address that the Internet has no route to, of which a kernel tells
// the same source only five times in a row.
func refusedStep(r *rand.Rand) step {
	network, to := []string{"tcp4", "udp4"}[r.IntN(2)], netip.AddrPortFrom(lab.ServerAddrs[0], uint16(10000+r.IntN(1000)))
	if r.IntN(8) == 0 {
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(256))}), 80)
	}
	return step{fmt.Sprint("nobody at ", network, " ", to), func(s half) (string, error) {
		return "", approach(s.t, s.lan, network, to, lossLimit)
	}}
}
