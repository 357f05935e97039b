package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// TestFailover_FastDownloadsReset: clients in the middle of downloads, as fast as the machine goes, are told at once.
func TestFailover_FastDownloadsReset(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, preferFirst)
	var downloads []*doomed
	for n := range 4 {
		downloads = append(downloads, w.download([]*lab.Namespace{w.lan, w.Gateway}[n%2], lab.ServerAddrs[0]))
	}
	downloads = w.onFirst(downloads)
	before := received(t, w, 0)
	eventually(t, "downloads at full speed", func() bool { return received(t, w, 0)-before > 20e6 })
	begun := time.Now()
	labtest.Must(t, w.Uplinks[0].Link.Cut())
	down := w.events.state("wan1", api.StateDown, begun)
	for _, d := range downloads {
		w.expectReset(d, down.Time)
	}
}

// TestFailover_ResetWithinWindow: a client that has received more than it could acknowledge, and less than it was sent, answers the
// reset with the number that it expects, and gets one with that (RFC 5961 §3.2).
func TestFailover_ResetWithinWindow(t *testing.T) {
	t.Parallel()
	const port, told, lost = 7777, 10, 1000 // bytes
	w := begin(t, lab.Options{}, preferFirst)
	listener, err := w.Internet.Listen("tcp4", fmt.Sprintf(":%d", port))
	labtest.Must(t, err)
	defer listener.Close()
	heard := make(chan struct{})
	client := w.doom("client", w.lan, lab.ServerAddrs[0], port, "hello", func(c net.Conn) error {
		_, _ = io.ReadFull(c, make([]byte, told))
		close(heard)
		return reads(c)
	})
	server, err := listener.Accept()
	labtest.Must(t, err)
	defer server.Close()
	say := func(bytes int) {
		t.Helper()
		_, err := io.WriteString(server, strings.Repeat("x", bytes))
		labtest.Must(t, err)
	}
	_, err = io.ReadFull(server, make([]byte, len("hello")))
	labtest.Must(t, err)

	nftablesRules(t, w.lan, fmt.Sprintf("table ip acks { chain out { type filter hook output priority 0; tcp dport %d drop; }; }\n", port))
	say(told)
	<-heard
	nftablesRules(t, w.lan, fmt.Sprintf("table ip data { chain in { type filter hook input priority 0; tcp sport %d ip length > 56 drop; }; }\n", port))
	say(lost)
	eventually(t, "the rest reaching the gateway", func() bool {
		s, ok := w.session("tcp", addrPortOf(client.LocalAddr()).Port())
		return ok && s.BytesIn > lost
	})
	nftablesRules(t, w.lan, "delete table ip acks\n")

	segments := labtest.Capture(t, w.lan, lab.DeviceHost)
	begun := time.Now()
	challenge, err := segments.AwaitAfter(labtest.Context(t), func(p *lab.Packet) bool {
		return p.Outgoing && p.TCP != nil && p.Dst.Port() == port
	}, w.Uplinks[0].Link.Cut)
	labtest.Must(t, err)
	if !challenge.TCP.ACK || challenge.TCP.RST || len(challenge.TCP.Payload) > 0 {
		t.Errorf("the client says %s", challenge)
	}
	w.expectReset(client, w.events.state("wan1", api.StateDown, begun).Time)
}
