package e2e

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestRFC5382_REQ2_Sequences: whatever TCP may do passes in both directions, and moves the state as it should.
func TestRFC5382_REQ2_Sequences(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	t.Run("data after FIN", func(*testing.T) {
		c := r.talk(4000, 80).connect()
		c.say(tFIN|tACK, 101, 901, "")
		c.expect("closing-out")
		c.hear(tACK, 901, 102, "late answer")
		c.say(tACK, 102, 912, "")
		c.hear(tFIN|tACK, 912, 102, "")
		c.say(tACK, 102, 913, "")
		c.expect("closed")
	})
	t.Run("half-closed by the remote", func(*testing.T) {
		c := r.talk(4001, 80).connect()
		c.hear(tFIN|tACK, 901, 101, "")
		c.say(tACK, 101, 902, "")
		c.expect("closing-in")
		c.say(tACK, 101, 902, "late question")
		c.hear(tACK, 902, 114, "")
		c.say(tFIN|tACK, 114, 902, "")
		c.expect("closed")
		c.hear(tACK, 902, 115, "")
	})
	t.Run("FIN crosses FIN", func(*testing.T) {
		c := r.talk(4002, 80).connect()
		c.say(tFIN|tACK, 101, 901, "")
		c.hear(tFIN|tACK, 901, 101, "")
		c.say(tACK, 102, 902, "")
		c.hear(tACK, 902, 102, "")
		c.expect("closed")
	})
	t.Run("repeated SYN", func(*testing.T) {
		c := r.talk(4003, 80)
		c.say(tSYN, 100, 0, "")
		c.say(tSYN, 100, 0, "")
		c.hear(tSYN|tACK, 900, 101, "")
		c.hear(tSYN|tACK, 900, 101, "")
		c.say(tACK, 101, 901, "")
		c.expect("established")
	})
	t.Run("data in the SYN", func(*testing.T) {
		c := r.talk(4004, 80)
		c.say(tSYN, 100, 0, "fast open")
		c.hear(tSYN|tACK, 900, 110, "fast answer")
		c.say(tACK, 110, 912, "")
		c.expect("established")
	})
}

// TestRFC5382_REQ2a_SimultaneousOpen: SYNs that cross on the way, and kernels that connect to each other: the remote begins, whose
// SYN nobody answers (REQ-4), and then the inside, from an endpoint that has a mapping already.
func TestRFC5382_REQ2a_SimultaneousOpen(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	t.Run("crossing", func(*testing.T) {
		c := r.talk(4000, 80)
		c.say(tSYN, 100, 0, "")
		c.hear(tSYN, 900, 0, "")
		c.say(tSYN|tACK, 100, 901, "")
		c.hear(tSYN|tACK, 900, 101, "")
		c.say(tACK, 101, 901, "")
		c.hear(tACK, 901, 101, "data")
		c.expect("established")
	})
	t.Run("from outside", func(*testing.T) {
		mapped := r.talk(4001, 80).connect()
		c := r.talk(4001, 81)
		c.remote = netip.AddrPortFrom(rawOther, 81)
		c.outside = mapped.outside
		c.dropped("an unsolicited SYN", c.segment(c.remote, c.outside, tSYN, 900, 0, ""))
		c.say(tSYN, 100, 0, "")
		c.hear(tSYN, 900, 0, "")
		c.say(tSYN|tACK, 100, 901, "")
		c.hear(tSYN|tACK, 900, 101, "")
		c.say(tACK, 101, 901, "data")
	})
	t.Run("sockets, host", func(t *testing.T) {
		testSimultaneousOpen(t, r.world, r.Gateway, netip.MustParseAddr("198.18.73.1"), 5555)
	})
	t.Run("sockets, LAN", func(t *testing.T) { testSimultaneousOpen(t, r.world, r.lan, r.Hosts[0].Addr, 5556) })
}

func testSimultaneousOpen(t *testing.T, w world, ns *lab.Namespace, inside netip.Addr, port uint16) {
	ctx, cancel := context.WithTimeout(labtest.Context(t), patience)
	defer cancel()
	first, err := dialShared(ctx, ns, inside, port, netip.AddrPortFrom(lab.ServerAddrs[0], lab.PortTCPEcho))
	labtest.Must(t, err)
	defer first.Close()
	s, ok := w.session("tcp", port)
	if !ok {
		t.Fatal("no session")
	}
	remote := netip.AddrPortFrom(lab.ServerAddrs[1], 1000+port)
	uplink := labtest.Capture(t, w.Gateway, s.Uplink)
	accepted := make(chan error, 1)
	go func() {
		conn, err := dialShared(ctx, w.Internet, remote.Addr(), remote.Port(), s.Outside)
		if err == nil {
			_, err = conn.Write([]byte("both began"))
			defer conn.Close()
		}
		accepted <- err
	}()
	_, err = uplink.Await(ctx, func(p *lab.Packet) bool { return p.TCP != nil && !p.Outgoing && p.Src == remote && p.TCP.SYN })
	labtest.Must(t, err) // the remote is waiting
	conn, err := dialShared(ctx, ns, inside, port, remote)
	labtest.Must(t, err)
	defer conn.Close()
	labtest.Must(t, labtest.Ended(t, accepted))
	labtest.Must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 100)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "both began" {
		t.Errorf("received %q, %v", buf[:n], err)
	}
}

// TestRFC5961_BlindPackets: what a sender that guesses makes of a connection is nothing. The inside gets it, as its answer
// brings a genuine remote to send what is exact.
func TestRFC5961_BlindPackets(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	c := r.talk(4000, 80).connect()
	c.say(tACK, 101, 901, "question")
	c.hear(tACK, 901, 109, "answer")
	c.say(tACK, 109, 907, "")
	for _, seq := range []uint32{0, 907 + 1_000_000, 906, 908, 907 + 20_000} {
		c.hear(tRST, seq, 0, "")
		c.expect("established")
	}
	c.hear(tSYN, 907+5000, 0, "")
	c.hear(tSYN|tACK, 907+5000, 4711, "")
	c.expect("established")
	c.hear(tFIN|tACK, 907+1_000_000, 109, "")
	c.say(tACK, 109, 907, "")
	for _, seq := range []uint32{907 + 5000, 907 + 5001, 907 + 1_000_000, 907 + 1_000_001} {
		c.hear(tRST, seq, 0, "")
		c.expect("established")
	}
	c.hear(tACK, 907, 109, "goes on")
	c.say(tACK, 109, 914, "")
	c.hear(tRST, 914, 0, "")
	c.expect("reset")

	c = r.talk(4001, 80).connect()
	c.say(tFIN|tACK, 101, 901, "")
	c.hear(tRST, 5, 0, "") // inexact, but a side has closed
	c.expect("closed")
}

// TestRFC5961_FiveTupleIsUsedAgain, while we hold its session for established: by way of the challenge that the remote answers
// with, or at once when the remote has forgotten the connection.
func TestRFC5961_FiveTupleIsUsedAgain(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "")
	for name, between := range map[string]func(c *talk){
		"challenged": func(c *talk) {
			c.hear(tACK, 901, 101, "")
			c.say(tRST, 101, 0, "")
			c.expect("reset")
			c.say(tSYN, 5000, 0, "")
		},
		"forgotten": func(*talk) {},
	} {
		t.Run(name, func(*testing.T) {
			c := r.talk(4000+uint16(len(name)), 80).connect()
			c.say(tSYN, 5000, 0, "")
			c.expect("established")
			between(c)
			c.hear(tSYN|tACK, 70, 5001, "")
			c.say(tACK, 5001, 71, "")
			c.expect("established")
			c.hear(tRST, 901, 0, "")
			c.expect("established")
			c.hear(tRST, 71, 0, "")
			c.expect("reset")
		})
	}
}

// TestRFC7857_S2_2_DataAfterRST: a RST does not close the way, and whoever goes on to send after it revives the session. A RST and
// what comes in for a session that is over do not refresh it.
func TestRFC7857_S2_2_DataAfterRST(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "nat: {timeouts: {tcp_transitory: 2s}}\n")
	c := r.talk(4000, 80).connect()
	c.hear(tRST, 901, 0, "")
	c.expect("reset")
	c.hear(tACK, 901, 101, "late data")
	c.expect("reset")
	c.say(tACK, 101, 910, "alive")
	c.expect("established")
	c.say(tRST, 106, 0, "")
	c.expect("reset")
	begun := time.Now()
	eventually(t, "the end of the session", func() bool {
		sendRaw(t, r.Internet, c.outside.Addr(), c.segment(c.remote, c.outside, tACK, 910, 106, "flood"))
		sendRaw(t, r.lan, c.remote.Addr(), c.segment(c.inside, c.remote, tRST, 106, 0, ""))
		_, ok := r.session("tcp", c.inside.Port())
		return !ok
	})
	if took := time.Since(begun); took < 1900*time.Millisecond {
		t.Errorf("it ended after %s", took)
	}
}

// TestAdoptTCP: a segment of a connection we know nothing of is reset, or where that is configured opens a session.
func TestAdoptTCP(t *testing.T) {
	t.Parallel()
	r := beginRaw(t, lab.Options{}, "nat: {adopt_tcp: true}\n")
	c := r.talk(4000, 80)
	c.say(tACK, 7000, 9000, "goes on")
	c.hear(tACK, 9000, 7007, "so does this")
	c.expect("established")
	c.hear(tRST, 1, 0, "")
	c.expect("established")
	if p := r.passes(c.segment(c.inside, netip.AddrPortFrom(rawRemote, 81), tSYN|tACK, 1, 1, ""), r.lan, r.wan, 300*time.Millisecond); p != nil {
		t.Errorf("a SYN-ACK opened a session: %s", p)
	}
	r.use("nat: {adopt_tcp: false}\n")
	c = r.talk(4001, 80)
	p, err := r.eth.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool { return p.TCP != nil && p.Dst == c.inside },
		func() error {
			sendRaw(t, r.lan, c.remote.Addr(), c.segment(c.inside, c.remote, tACK, 7000, 9000, "goes on"))
			return nil
		})
	labtest.Must(t, err)
	if !p.TCP.RST || p.TCP.Seq != 9000 {
		t.Errorf("answered with %s", p)
	}
}
