package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/ice/v4"
	"github.com/pion/transport/v3"
	"github.com/pion/transport/v3/stdnet"
	"github.com/pion/webrtc/v4"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// insideNet opens the sockets of a peer in a namespace.
type insideNet struct {
	*stdnet.Net
	ns *lab.Namespace
}

func newInsideNet(t testing.TB, ns *lab.Namespace) insideNet {
	t.Helper()
	n := insideNet{ns: ns}
	labtest.Must(t, ns.Do(func() (err error) {
		n.Net, err = stdnet.NewNet()
		return err
	}))
	return n
}

// ListenUDP is all that a peer without relays and without TCP needs.
func (n insideNet) ListenUDP(network string, at *net.UDPAddr) (conn transport.UDPConn, err error) {
	err = n.ns.Do(func() error {
		conn, err = net.ListenUDP(network, at)
		return err
	})
	return conn, err
}

// newPeer makes a WebRTC peer that learns its outside endpoint from the STUN server.
func newPeer(t testing.TB, ns *lab.Namespace) *webrtc.PeerConnection {
	t.Helper()
	var settings webrtc.SettingEngine
	settings.SetNet(newInsideNet(t, ns))
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	server := fmt.Sprintf("stun:%s", netip.AddrPortFrom(lab.ServerAddrs[0], 3478))
	peer, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{
		ICEServers: []webrtc.ICEServer{{URLs: []string{server}}},
	})
	labtest.Must(t, err)
	t.Cleanup(func() { _ = peer.Close() }) // says goodbye to a peer that may be gone
	return peer
}

// describe sets a peer's own description and returns it with its candidates, less those of local addresses where they are not
// to be used.
func describe(t testing.TB, peer *webrtc.PeerConnection, d webrtc.SessionDescription, local bool) webrtc.SessionDescription {
	t.Helper()
	gathered := webrtc.GatheringCompletePromise(peer)
	labtest.Must(t, peer.SetLocalDescription(d))
	select {
	case <-gathered:
	case <-labtest.Context(t).Done():
		t.Fatal("no candidates")
	}
	full := *peer.LocalDescription()
	var kept strings.Builder
	for line := range strings.Lines(full.SDP) {
		if local || !contains(line, "typ host") {
			kept.WriteString(line)
		}
	}
	full.SDP = kept.String()
	if !contains(full.SDP, "typ srflx") && !local {
		t.Fatalf("the peer did not learn its outside endpoint:\n%s", full.SDP)
	}
	return full
}

// connectPeers opens a data channel whose messages the second peer sends back; local says whether each tells of its local
// addresses.
func connectPeers(t testing.TB, a, b *webrtc.PeerConnection, local [2]bool) (channel *webrtc.DataChannel, answers chan []byte) {
	t.Helper()
	b.OnDataChannel(func(c *webrtc.DataChannel) {
		c.OnMessage(func(m webrtc.DataChannelMessage) { _ = c.Send(m.Data) })
	})
	channel, err := a.CreateDataChannel("data", nil)
	labtest.Must(t, err)
	open := make(chan struct{})
	answers = make(chan []byte, 100)
	channel.OnOpen(func() { close(open) })
	channel.OnMessage(func(m webrtc.DataChannelMessage) { answers <- bytes.Clone(m.Data) })
	offer, err := a.CreateOffer(nil)
	labtest.Must(t, err)
	labtest.Must(t, b.SetRemoteDescription(describe(t, a, offer, local[0])))
	answer, err := b.CreateAnswer(nil)
	labtest.Must(t, err)
	labtest.Must(t, a.SetRemoteDescription(describe(t, b, answer, local[1])))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-open:
	case <-ctx.Done():
		t.Fatalf("the peers did not find each other: %s and %s", a.ICEConnectionState(), b.ICEConnectionState())
	}
	return channel, answers
}

// expectMessages sends messages that must come back.
func expectMessages(t testing.TB, channel *webrtc.DataChannel, answers <-chan []byte) {
	t.Helper()
	for i := range 50 {
		message := bytes.Repeat([]byte{byte(i)}, 1+300*i)
		labtest.Must(t, channel.Send(message))
		select {
		case got := <-answers:
			if !bytes.Equal(got, message) {
				t.Fatalf("%d other bytes came back", len(got))
			}
		case <-labtest.Context(t).Done():
			t.Fatal("no answer")
		}
	}
}

// TestRFC4787_REQ1_DataChannel: WebRTC peers find each other by what STUN told them, one behind the gateway and one outside.
func TestRFC4787_REQ1_DataChannel(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, inTurn)
	startSTUN(t, w.Internet)
	for range len(w.Uplinks) {
		channel, answers := connectPeers(t, newPeer(t, w.lan), newPeer(t, w.Internet), [2]bool{false, true})
		expectMessages(t, channel, answers)
	}
}

// TestRFC4787_REQ9_DataChannelBetweenLANHosts: two peers of the LAN that know only each other's outside endpoint.
func TestRFC4787_REQ9_DataChannelBetweenLANHosts(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{LANHosts: 2}, inTurn)
	startSTUN(t, w.Internet)
	for range len(w.Uplinks) {
		channel, answers := connectPeers(t, newPeer(t, w.lan), newPeer(t, w.Hosts[1].Namespace), [2]bool{})
		expectMessages(t, channel, answers)
	}
}
