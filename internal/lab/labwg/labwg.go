// Package labwg makes WireGuard tunnels in the laboratory: wireguard-go in this process, devices and sockets in namespaces.
package labwg

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"tapgw/internal/lab"
)

const (
	// Device is the name of a tunnel's device.
	Device = "wg0"
	// Port is where a server listens.
	Port = 51820
)

// Addresses inside the tunnel.
var (
	Server = netip.MustParsePrefix("10.99.0.1/24")
	Client = netip.MustParsePrefix("10.99.0.2/24")
)

// Tunnel is one end of a WireGuard tunnel. Close removes it.
type Tunnel struct {
	*device.Device
	ns    *lab.Namespace
	index int
}

// NewKey makes the key pair of one end.
func NewKey() (*ecdh.PrivateKey, error) { return ecdh.X25519().GenerateKey(rand.Reader) }

// Open makes one end with a configuration in WireGuard's own format, less the key. What goes wrong later is told to complain.
func Open(ns *lab.Namespace, address netip.Prefix, key *ecdh.PrivateKey, complain func(string), config ...string) (w *Tunnel, err error) {
	w = &Tunnel{ns: ns}
	config = append([]string{"private_key=" + hex.EncodeToString(key.Bytes())}, config...)
	err = ns.Do(func() error {
		inner, err := openTUN(Device)
		if err != nil {
			return err
		}
		w.Device = device.NewDevice(inner, conn.NewDefaultBind(), &device.Logger{
			Verbosef: device.DiscardLogf,
			Errorf:   func(format string, args ...any) { complain(ns.Name() + ": " + fmt.Sprintf(format, args...)) },
		})
		if err := w.IpcSet(strings.Join(config, "\n")); err != nil {
			return err
		}
		return w.Up() // the sockets belong to the namespace of this thread
	})
	if err == nil {
		err = w.setUp(address)
	}
	if err != nil && w.Device != nil {
		w.Close()
	}
	return w, err
}

func (w *Tunnel) setUp(address netip.Prefix) error {
	h := w.ns.Handle()
	link, err := h.LinkByName(Device)
	if err != nil {
		return err
	}
	w.index = link.Attrs().Index
	return errors.Join(
		h.LinkSetMTU(link, device.DefaultMTU),
		h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(address)}),
		h.LinkSetUp(link))
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

// ServerConfig is the configuration of the end that is spoken to first, for one client with these inner addresses.
func ServerConfig(client *ecdh.PublicKey, allowed ...string) []string {
	config := []string{fmt.Sprintf("listen_port=%d", Port), "public_key=" + hex.EncodeToString(client.Bytes())}
	for _, a := range allowed {
		config = append(config, "allowed_ip="+a)
	}
	return config
}

// ClientConfig is the configuration of the end that speaks first, for everything, and again after so many seconds of silence.
func ClientConfig(server *ecdh.PublicKey, keepalive int) []string {
	return []string{"public_key=" + hex.EncodeToString(server.Bytes()), fmt.Sprintf("endpoint=%s:%d", lab.ServerAddrs[0], Port),
		fmt.Sprintf("persistent_keepalive_interval=%d", keepalive), "allowed_ip=0.0.0.0/0"}
}

// AnswerFromServer has the Internet send from the server's address what names none, as wireguard-go cannot choose its source.
func AnswerFromServer(internet *lab.Namespace) error {
	routes, err := internet.Handle().RouteList(nil, unix.AF_INET)
	for _, r := range routes {
		if r.Gw != nil {
			r.Src = lab.ServerAddrs[0].AsSlice()
			err = errors.Join(err, internet.Handle().RouteReplace(&r))
		}
	}
	return err
}

// Route leads into the tunnel.
func (w *Tunnel) Route(to netip.Prefix, metric, table int) error {
	return w.ns.Handle().RouteReplace(&netlink.Route{
		LinkIndex: w.index, Dst: ipNet(to), Priority: metric, Table: table, Scope: netlink.SCOPE_LINK,
	})
}

// Endpoint is where the tunnel's other end was heard last, invalid as long as it was not.
func (w *Tunnel) Endpoint() (netip.AddrPort, error) {
	state, err := w.IpcGet()
	for line := range strings.Lines(state) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "endpoint="); ok && err == nil {
			return netip.ParseAddrPort(text)
		}
	}
	return netip.AddrPort{}, err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
