package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/icmp"
	"golang.org/x/sys/unix"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// Sizes that the kernel cuts in pieces.
var large = []int{4000, 20000}

// eachKind runs a test with uplinks of both kinds.
func eachKind(t *testing.T, test func(t *testing.T, topology *lab.Topology)) {
	for name, headerLess := range map[string]bool{"ethernet": false, "header-less": true} {
		t.Run(name, func(t *testing.T) {
			kind := lab.UplinkOptions{HeaderLess: headerLess}
			topology := labtest.Build(t, lab.Options{Uplinks: []lab.UplinkOptions{kind, kind}})
			labtest.Servers(t, topology)
			start(t, topology.Gateway, "").awaitUp(topology)
			online(t, topology.Hosts[0].Namespace) // datagrams are not repeated
			for _, u := range topology.Uplinks {
				labtest.Capture(t, topology.Gateway, u.Device)
			}
			test(t, topology)
		})
	}
}

// TestLargeDatagrams: what the kernel cuts in pieces passes both ways (RFC 4787 REQ-14), from a LAN host and the host itself.
func TestLargeDatagrams(t *testing.T) {
	eachKind(t, func(t *testing.T, topology *lab.Topology) {
		ctx := labtest.Context(t)
		for name, ns := range map[string]*lab.Namespace{"host": topology.Gateway, "lan": topology.Hosts[0].Namespace} {
			conn, err := ns.ListenPacket("udp4", ":0")
			labtest.Must(t, err)
			defer conn.Close()
			for _, n := range large {
				if _, err := lab.AskUDP(ctx, conn, lab.ServerAddrs[0], strings.Repeat("x", n)); err != nil {
					t.Errorf("%s: %d bytes by UDP: %v", name, n, err)
				}
			}
			if err := pingLarge(ctx, ns, lab.ServerAddrs[0], 4000); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// pingLarge sends one echo request of n bytes and waits for the same bytes to come back.
func pingLarge(ctx context.Context, ns *lab.Namespace, addr netip.Addr, n int) error {
	f := familyOf(addr)
	conn, err := ns.ListenPacket(f.icmp, f.anyIP)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	request := &icmp.Echo{ID: n, Seq: 7, Data: bytes.Repeat([]byte{0xa5}, n)}
	b, err := (&icmp.Message{Type: f.request, Body: request}).Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(b, &net.IPAddr{IP: addr.AsSlice()}); err != nil {
		return err
	}
	for buf := make([]byte, 1<<16); ; {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("ping %s with %d bytes: %w", addr, n, err)
		}
		m, err := icmp.ParseMessage(f.proto, buf[:size])
		if err != nil || m.Type != f.reply || from.String() != addr.String() {
			continue
		}
		if reply, ok := m.Body.(*icmp.Echo); ok && reply.ID == request.ID && bytes.Equal(reply.Data, request.Data) {
			return nil
		}
	}
}

// TestLargeDatagramsToTheHost: a service on an uplink's own address, with a port in our pool and outside it, and echo
// requests to that address.
func TestLargeDatagramsToTheHost(t *testing.T) {
	eachKind(t, func(t *testing.T, topology *lab.Topology) {
		ctx := labtest.Context(t)
		for _, u := range topology.Uplinks {
			if err := pingLarge(ctx, topology.Internet, u.Addr(), 4000); err != nil {
				t.Errorf("%s: %v", u.Device, err)
			}
			for _, port := range []uint16{5001, 40001} {
				service := netip.AddrPortFrom(u.Addr(), port)
				serveUDP(t, topology.Gateway, service)
				for _, n := range large {
					if err := askService(ctx, topology.Internet, service, n); err != nil {
						t.Errorf("%s: %d bytes: %v", u.Device, n, err)
					}
				}
			}
		}
	})
}

// serveUDP sends each datagram back until the test ends.
func serveUDP(t testing.TB, ns *lab.Namespace, at netip.AddrPort) net.PacketConn {
	t.Helper()
	conn, err := listenUDP(ns, at)
	labtest.Must(t, err)
	answerAll(t, conn, func(_ net.Addr, b []byte) []byte { return b })
	return conn
}

// answerAll answers each packet that a socket receives, until the test ends, which closes it.
func answerAll(t testing.TB, conn net.PacketConn, answer func(from net.Addr, b []byte) []byte) {
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		for buf := make([]byte, 1<<16); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(answer(from, buf[:n]), from) // what is lost, the client misses
		}
	}()
}

// listenUDP opens a socket. A program that another test just starts has the descriptors of this process until it runs, those of
// sockets too that were closed meanwhile, whose ports are in use for so long.
func listenUDP(ns *lab.Namespace, at netip.AddrPort) (conn net.PacketConn, err error) {
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		conn, err = ns.ListenPacket(familyOf(at.Addr()).udp, at.String())
		if !errors.Is(err, syscall.EADDRINUSE) || time.Since(begun) > patience {
			return conn, err
		}
	}
}

// askService sends n bytes to a UDP service and waits for them to come back until ctx ends.
func askService(ctx context.Context, ns *lab.Namespace, service netip.AddrPort, n int) error {
	conn, err := ns.Dial(ctx, familyOf(service.Addr()).udp, service.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(patience)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	payload := bytes.Repeat([]byte{'y'}, n)
	if _, err := conn.Write(payload); err != nil {
		return err
	}
	got := make([]byte, 1<<16)
	size, err := conn.Read(got)
	if err == nil && !bytes.Equal(got[:size], payload) {
		err = lab.ErrCorrupt
	}
	return err
}

// TestFragmentsOutOfOrder: the remote sends the pieces of its answers in each order, one of them twice, and a piece of
// something else between.
func TestFragmentsOutOfOrder(t *testing.T) {
	eachKind(t, func(t *testing.T, topology *lab.Topology) { testFragmentOrders(t, overIPv4, topology) })
}

func testFragmentOrders(t *testing.T, f *family, topology *lab.Topology) {
	remote := netip.AddrPortFrom(f.servers[0], 9000)
	server, err := listenUDP(topology.Internet, remote)
	labtest.Must(t, err)
	defer server.Close()
	client, err := topology.Hosts[0].ListenPacket(f.udp, ":0")
	labtest.Must(t, err)
	defer client.Close()
	labtest.Must(t, server.SetDeadline(time.Now().Add(patience)))
	_, err = client.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(remote))
	labtest.Must(t, err)
	buf := make([]byte, 1<<16)
	_, outside, err := server.ReadFrom(buf)
	labtest.Must(t, err)
	to := outside.(*net.UDPAddr).AddrPort()
	eachOrder(t, topology.Internet, remote, to, func(order []int, payload string) {
		labtest.Must(t, client.SetReadDeadline(time.Now().Add(patience)))
		n, from, err := client.ReadFrom(buf)
		if err != nil || string(buf[:n]) != payload || from.String() != remote.String() {
			t.Fatalf("order %v: received %d bytes from %v, %v", order, n, from, err)
		}
	})
}

// eachOrder sends datagrams in three pieces, in each order, one of them twice, and a piece of something else before.
func eachOrder(t *testing.T, from *lab.Namespace, src, dst netip.AddrPort, arrives func(order []int, payload string)) {
	t.Helper()
	for id, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}, {2, 2, 0, 1}} {
		payload := strings.Repeat(fmt.Sprint(id), 4000)
		pieces := fragments(t, src, dst, uint16(id+1), payload)
		sendRaw(t, from, dst.Addr(), fragments(t, src, dst, uint16(id+1000), payload)[1])
		for _, i := range order {
			sendRaw(t, from, dst.Addr(), pieces[i])
		}
		arrives(order, payload)
	}
}

// TestFragmentFlood is fault 37: orphans and datagrams without end, to the uplink's address from many sources, do not cost
// sessions that the kernel carries a packet; what Go must see waits among the fragments and may be lost; afterwards large
// datagrams pass as before, as soon as the host's own stack has given up what it could not reassemble.
func TestFragmentFlood(t *testing.T) {
	topology := labtest.Build(t, lab.Options{Uplinks: make([]lab.UplinkOptions, 1)})
	labtest.Servers(t, topology)
	labtest.Must(t, topology.Gateway.Sysctl("net/ipv4/ipfrag_time", "1"))
	start(t, topology.Gateway, "").awaitUp(topology)
	lan := topology.Hosts[0].Namespace
	online(t, lan)
	ctx, stop := context.WithCancel(labtest.Context(t))
	known, err := lan.ListenPacket("udp4", "0.0.0.0:0")
	labtest.Must(t, err)
	defer known.Close()
	_, err = lab.AskUDP(ctx, known, lab.ServerAddrs[0], "before the flood")
	labtest.Must(t, err)
	hits := 50 // questions to ask in each round
	if datapath(t) == api.DatapathUserspace {
		hits = 0
	}
	defer stop()
	flooded := make(chan int, 1)
	go func() { flooded <- floodFragments(ctx, t, topology) }()
	for range 20 {
		if _, err := lan.Download(ctx, lab.ServerAddrs[0], 1<<20); err != nil {
			t.Error(err)
		}
		for range hits {
			if _, err := lab.AskUDP(ctx, known, lab.ServerAddrs[0], "in the flood"); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "an answer to a ping", func() bool { // the first packet of each session is for Go
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := lan.Ping(ctx, lab.ServerAddrs[0])
			return err == nil
		})
	}
	stop()
	if n := <-flooded; n < 1000 {
		t.Errorf("only %d fragments flooded: nothing tested", n)
	}
	eventually(t, "a large datagram after the flood", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return pingLarge(ctx, lan, lab.ServerAddrs[0], 4000) == nil
	})
}

// floodFragments sends first and later fragments from a new source each until ctx ends, and returns how many.
func floodFragments(ctx context.Context, t *testing.T, topology *lab.Topology) (n int) {
	to := netip.AddrPortFrom(topology.Uplinks[0].Addr(), 5001)
	pieces := fragments(t, netip.AddrPortFrom(lab.ServerAddrs[1], 9), to, 1, strings.Repeat("z", 4000))
	fd, err := rawSocket(topology.Internet, unix.AF_INET)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer unix.Close(fd)
	for ; ctx.Err() == nil; n++ {
		b := pieces[n%2]
		b[4], b[5], b[14], b[15] = byte(n>>8), byte(n), byte(n>>16), byte(n>>8) // the kernel sums the header anew
		_ = unix.Sendto(fd, b, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	}
	return n
}

// fragments makes a UDP datagram in three pieces.
func fragments(t *testing.T, src, dst netip.AddrPort, id uint16, payload string) (list [][]byte) {
	t.Helper()
	if src.Addr().Is6() {
		return fragmentsV6(t, src, dst, uint32(id), payload)
	}
	h := &layers.IPv4{Version: 4, TTL: 64, Id: id, Protocol: layers.IPProtocolUDP, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
	udp := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
	labtest.Must(t, udp.SetNetworkLayerForChecksum(h))
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	buf := gopacket.NewSerializeBuffer()
	labtest.Must(t, gopacket.SerializeLayers(buf, options, udp, gopacket.Payload(payload)))
	data := bytes.Clone(buf.Bytes())
	for at := 0; at < len(data); at += 1480 {
		end := min(at+1480, len(data))
		h.FragOffset, h.Flags = uint16(at/8), layers.IPv4MoreFragments
		if end == len(data) {
			h.Flags = 0
		}
		labtest.Must(t, gopacket.SerializeLayers(buf, options, h, gopacket.Payload(data[at:end])))
		list = append(list, bytes.Clone(buf.Bytes()))
	}
	return list
}

// sendRaw sends an IP packet as it is.
func sendRaw(t *testing.T, ns *lab.Namespace, to netip.Addr, b []byte) {
	t.Helper()
	family, sockaddr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.As16()})
	if to.Is4() {
		family, sockaddr = unix.AF_INET, &unix.SockaddrInet4{Addr: to.As4()}
	}
	fd, err := rawSocket(ns, family)
	labtest.Must(t, err)
	defer unix.Close(fd)
	labtest.Must(t, unix.Sendto(fd, b, 0, sockaddr))
}

// rawSocket opens a socket that sends packets of a family with their header.
func rawSocket(ns *lab.Namespace, family int) (fd int, err error) {
	err = ns.Do(func() error {
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	return fd, err
}
