package e2e

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

const (
	deviceWG = "wg0"
	portWG   = 51820
	markWG   = 51820 // of encapsulated packets, and number of the table, as wg-quick has them
)

// Addresses inside the tunnel.
var (
	serverWG = netip.MustParsePrefix("10.99.0.1/24")
	clientWG = netip.MustParsePrefix("10.99.0.2/24")
)

// tunnel is one end of a WireGuard tunnel: wireguard-go in this process, device and sockets in a namespace.
type tunnel struct {
	*device.Device
	ns    *lab.Namespace
	index int
}

func newKey(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	labtest.Must(t, err)
	return key
}

// openTunnel makes one end with a configuration in WireGuard's own format, less the key.
func openTunnel(t testing.TB, ns *lab.Namespace, address netip.Prefix, key *ecdh.PrivateKey, config ...string) *tunnel {
	t.Helper()
	w := &tunnel{ns: ns}
	config = append([]string{"private_key=" + hex.EncodeToString(key.Bytes())}, config...)
	labtest.Must(t, ns.Do(func() error {
		inner, err := openTUN(deviceWG)
		if err != nil {
			return err
		}
		w.Device = device.NewDevice(inner, conn.NewDefaultBind(), &device.Logger{
			Verbosef: device.DiscardLogf,
			Errorf:   func(format string, args ...any) { t.Logf("%s: %s", ns.Name(), fmt.Sprintf(format, args...)) },
		})
		if err := w.IpcSet(strings.Join(config, "\n")); err != nil {
			return err
		}
		return w.Up() // the sockets belong to the namespace of this thread
	}))
	t.Cleanup(w.Close)
	h := ns.Handle()
	link, err := h.LinkByName(deviceWG)
	labtest.Must(t, err)
	w.index = link.Attrs().Index
	labtest.Must(t, h.LinkSetMTU(link, device.DefaultMTU))
	labtest.Must(t, h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(address)}))
	labtest.Must(t, h.LinkSetUp(link))
	return w
}

// openTUN is what wireguard-go does itself, without its watching the device from whatever namespace a thread is in.
func openTUN(name string) (tun.Device, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("TUNSETIFF", err)
	}
	d, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	return d, err
}

// openServer makes the end that is spoken to first, for one client with these inner addresses.
func openServer(t testing.TB, ns *lab.Namespace, key *ecdh.PrivateKey, client *ecdh.PublicKey, allowed ...string) *tunnel {
	t.Helper()
	config := []string{fmt.Sprintf("listen_port=%d", portWG), "public_key=" + hex.EncodeToString(client.Bytes())}
	for _, a := range allowed {
		config = append(config, "allowed_ip="+a)
	}
	return openTunnel(t, ns, serverWG, key, config...)
}

// openInternetServer is openServer for one that answers from where it is asked, as wireguard-go cannot choose its source.
func openInternetServer(t testing.TB, internet *lab.Namespace, key *ecdh.PrivateKey, client *ecdh.PublicKey, allowed ...string) *tunnel {
	t.Helper()
	routes, err := internet.Handle().RouteList(nil, unix.AF_INET)
	labtest.Must(t, err)
	for _, r := range routes {
		if r.Gw != nil {
			r.Src = lab.ServerAddrs[0].AsSlice()
			labtest.Must(t, internet.Handle().RouteReplace(&r))
		}
	}
	return openServer(t, internet, key, client, allowed...)
}

// openClient makes the end that speaks first, for everything.
func openClient(t testing.TB, ns *lab.Namespace, key *ecdh.PrivateKey, server *ecdh.PublicKey, config ...string) *tunnel {
	t.Helper()
	return openTunnel(t, ns, clientWG, key, append(config, "public_key="+hex.EncodeToString(server.Bytes()),
		fmt.Sprintf("endpoint=%s:%d", lab.ServerAddrs[0], portWG), "persistent_keepalive_interval=1", "allowed_ip=0.0.0.0/0")...)
}

// route leads into the tunnel.
func (w *tunnel) route(t testing.TB, to netip.Prefix, metric, table int) {
	t.Helper()
	labtest.Must(t, w.ns.Handle().RouteReplace(&netlink.Route{
		LinkIndex: w.index, Dst: ipNet(to), Priority: metric, Table: table, Scope: netlink.SCOPE_LINK,
	}))
}

// endpoint is where the tunnel's other end was heard last.
func (w *tunnel) endpoint(t testing.TB) netip.AddrPort {
	t.Helper()
	state, err := w.IpcGet()
	labtest.Must(t, err)
	for line := range strings.Lines(state) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "endpoint="); ok {
			return netip.MustParseAddrPort(text)
		}
	}
	return netip.AddrPort{}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
