package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// maxAnswer bounds the short answers of the servers, bytes.
const maxAnswer = 4096

// Download fetches length bytes from the HTTP server at addr by a connection of its own and checks each.
func (n *Namespace) Download(ctx context.Context, addr netip.Addr, length uint64) (t Transfer, err error) {
	start := time.Now()
	defer func() { t.Duration = time.Since(start) }()
	resp, err := n.request(ctx, http.MethodGet, fmt.Sprintf("http://%s/bytes?n=%d", urlHost(addr), length), nil)
	if err != nil {
		return t, err
	}
	defer resp.Body.Close()
	t.Bytes, err = checkStream(resp.Body, newPattern(length), length)
	return t, err
}

// Upload sends length bytes to the HTTP server at addr and compares the SHA-256 it saw.
func (n *Namespace) Upload(ctx context.Context, addr netip.Addr, length uint64) (t Transfer, err error) {
	start := time.Now()
	defer func() { t.Duration = time.Since(start) }()
	sum := sha256.New()
	body, feed := io.Pipe()
	defer body.Close()
	go func() { feed.CloseWithError(writePattern(io.MultiWriter(feed, sum), newPattern(length), length)) }()
	resp, err := n.request(ctx, http.MethodPost, fmt.Sprintf("http://%s/upload", urlHost(addr)), body)
	if err != nil {
		return t, err
	}
	answer, err := readAnswer(resp)
	if err != nil {
		return t, err
	}
	if want := fmt.Sprintf("%d %s", length, hex.EncodeToString(sum.Sum(nil))); answer != want {
		return t, fmt.Errorf("upload: %w: server saw %q, sent %q", ErrCorrupt, answer, want)
	}
	t.Bytes = length
	return t, nil
}

// WhoAmI asks the HTTP server at addr from which address and port it is asked: the outside of the NAT.
func (n *Namespace) WhoAmI(ctx context.Context, addr netip.Addr) (netip.AddrPort, error) {
	resp, err := n.request(ctx, http.MethodGet, fmt.Sprintf("http://%s/whoami", urlHost(addr)), nil)
	if err != nil {
		return netip.AddrPort{}, err
	}
	answer, err := readAnswer(resp)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(answer)
}

// urlHost is an address as URLs have it (RFC 3986 §3.2.2).
func urlHost(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

func (n *Namespace) request(ctx context.Context, method, url string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	resp, err := n.HTTPClient().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s %s: status %s", method, url, resp.Status), resp.Body.Close())
	}
	return resp, nil
}

func readAnswer(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return string(b), err
}

// AskUDP sends payload to the UDP echo server at addr by an existing socket, checks that it comes back unchanged, and
// returns the source the server saw. Without an answer before ctx ends (or 2 s), the error is a timeout.
func AskUDP(ctx context.Context, conn net.PacketConn, addr netip.Addr, payload string) (netip.AddrPort, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(2 * time.Second)
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		return netip.AddrPort{}, err
	}
	server := netip.AddrPortFrom(addr, PortUDPEcho)
	if _, err := conn.WriteTo([]byte(payload), net.UDPAddrFromAddrPort(server)); err != nil {
		return netip.AddrPort{}, err
	}
	buf := make([]byte, maxPacket)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("wait for UDP echo of %s: %w", server, err)
		}
		seen, back, _ := strings.Cut(string(buf[:n]), " ")
		if from.String() != server.String() {
			continue // a late answer of another server
		}
		if back != payload {
			return netip.AddrPort{}, fmt.Errorf("UDP echo of %s: %w: %q for %q", server, ErrCorrupt, back, payload)
		}
		return netip.ParseAddrPort(seen)
	}
}
