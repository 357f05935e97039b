package lab_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func TestDownloadFindsCorruptData(t *testing.T) {
	const size = 300_000
	handler := lab.NewHandler()
	for name, spoil := range map[string]func([]byte) []byte{
		"flipped bit":   func(b []byte) []byte { b[size/2] ^= 1; return b },
		"swapped parts": func(b []byte) []byte { return append(append(b[1448:2896:2896], b[:1448]...), b[2896:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			n := labtest.Namespace(t, "n")
			servers, err := lab.StartHTTP(n, lab.PortHTTP, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				good := &recorder{ResponseWriter: w}
				handler.ServeHTTP(good, r)
				_, _ = w.Write(spoil(good.body))
			}))
			labtest.Must(t, err)
			defer servers.Close()
			if _, err := n.Download(labtest.Context(t), loopback, size); !errors.Is(err, lab.ErrCorrupt) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// recorder keeps the body back.
type recorder struct {
	http.ResponseWriter
	body []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.body = append(r.body, b...)
	return len(b), nil
}

func TestStreamsOfDifferentSeedsDiffer(t *testing.T) {
	n := labtest.Namespace(t, "n")
	servers, err := lab.StartServers(n)
	labtest.Must(t, err)
	defer servers.Close()
	streams := make(map[string]string)
	for _, size := range []string{"1000", "1001"} { // the length is the seed
		resp, err := n.HTTPClient().Get("http://127.0.0.1/bytes?n=" + size)
		labtest.Must(t, err)
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1000))
		labtest.Must(t, errors.Join(err, resp.Body.Close()))
		streams[size] = string(b)
	}
	if len(streams["1000"]) != 1000 || streams["1000"] == streams["1001"] {
		t.Error("streams are equal")
	}
}

func TestServersRefuseTooMuch(t *testing.T) {
	n := labtest.Namespace(t, "n")
	servers, err := lab.StartServers(n)
	labtest.Must(t, err)
	defer servers.Close()
	for _, size := range []string{"", "-1", "x", "99999999999999999999"} {
		resp, err := n.HTTPClient().Get("http://127.0.0.1/bytes?n=" + size)
		labtest.Must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("n=%s: status %s", size, resp.Status)
		}
	}
}

func TestCloseCutsConnections(t *testing.T) {
	n := labtest.Namespace(t, "n")
	servers, err := lab.StartServers(n)
	labtest.Must(t, err)
	c, err := n.Dial(labtest.Context(t), "tcp4", netip.AddrPortFrom(loopback, lab.PortTCPEcho).String())
	labtest.Must(t, err)
	defer c.Close()
	expectEcho(t, c, true)
	labtest.Must(t, servers.Close())
	labtest.Must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("connection still open: %v", err)
	}
}

func TestUDPEchoAnswersFromTheAddressAsked(t *testing.T) {
	topo := masqueraded(t, lab.Options{})
	conn, err := topo.Hosts[0].ListenPacket("udp4", "0.0.0.0:4321")
	labtest.Must(t, err)
	defer conn.Close()
	for _, addr := range []netip.Addr{lab.ServerAddrs[0], lab.ServerAddrs[1], lab.ProbeTargets[1]} {
		seen, err := lab.AskUDP(labtest.Context(t), conn, addr, "hello "+strings.Repeat("x", 100))
		if err != nil || seen.Addr() != topo.Uplinks[0].Addr() {
			t.Errorf("%s saw %s, %v", addr, seen, err)
		}
	}
}
