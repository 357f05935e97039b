package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// leaseTime is the least that the client takes, seconds.
const leaseTime = 16

// clientScript does what DHCP clients do with a lease: the address, the routes of option 121 or else of option 3, and nothing that
// is there already. It notes what it was called for.
const clientScript = `#!/bin/sh
echo "$1 $ip" >>"$0.log"
case "$1" in
deconfig)
	ip -4 addr flush dev "$interface"
	ip link set "$interface" up ;;
bound|renew)
	ip addr replace "$ip/$mask" dev "$interface"
	for old in $(ip -4 -o addr show dev "$interface" | awk '{print $4}'); do
		test "$old" = "$ip/$mask" || ip addr del "$old" dev "$interface"
	done
	test -z "$staticroutes" && test -n "$router" && staticroutes="0.0.0.0/0 $router"
	case " $staticroutes" in *" 0.0.0.0/0 "*) ;; *) ip route del default dev "$interface" 2>/dev/null ;; esac
	set -- $staticroutes
	while test $# -gt 1; do
		ip route replace "$1" via "$2" dev "$interface" metric %d
		shift 2
	done ;;
esac
exit 0
`

// leased is an uplink whose address is one of a DHCP server at the provider, by a client in the gateway.
type leased struct {
	t      testing.TB
	u      *lab.Uplink
	dir    string
	addr   netip.Addr // that the server leases
	server *lab.Cmd
	client *lab.Cmd
}

// lease replaces an uplink's fixed address by a lease of another.
func lease(t testing.TB, w *lab.Topology, u *lab.Uplink, addr netip.Addr) *leased {
	t.Helper()
	l := &leased{t: t, u: u, dir: t.TempDir()}
	link, err := w.Gateway.Handle().LinkByName(u.Device)
	labtest.Must(t, err)
	labtest.Must(t, w.Gateway.Handle().AddrDel(link, &netlink.Addr{IPNet: ipNet(u.Link.Near.Prefix)}))
	l.serve(addr, "opt router "+u.NextHop().String())
	script := filepath.Join(l.dir, "script")
	labtest.Must(t, os.WriteFile(script, fmt.Appendf(nil, clientScript, u.Metric()), 0o755))
	l.client = l.start(w.Gateway, "udhcpc", "-f", "-i", u.Device, "-s", script, "-t", "3", "-T", "1", "-A", "1", "-O", "staticroutes")
	t.Cleanup(func() { endPeer(&l.client) })
	l.await("bound", addr)
	return l
}

// serve has the provider lease this address from now on, with more options in udhcpd's words.
func (l *leased) serve(addr netip.Addr, options ...string) {
	l.t.Helper()
	l.silence()
	config := fmt.Sprintf("start %s\nend %[1]s\ninterface %s\nlease_file %s/leases\npidfile %[3]s/pid\nopt subnet 255.255.255.0\nopt lease %d\nmin_lease 1\n%s\n",
		addr, lab.DeviceCustomer, l.dir, leaseTime, strings.Join(options, "\n"))
	file := filepath.Join(l.dir, "udhcpd.conf")
	labtest.Must(l.t, os.WriteFile(file, []byte(config), 0o600))
	leases := filepath.Join(l.dir, "leases")
	if addr != l.addr { // else the server remembers whom it is leased to
		l.addr = addr
		labtest.Must(l.t, os.WriteFile(leases, nil, 0o600))
	}
	l.server = l.start(l.u.ISP, "udhcpd", "-f", "-a", "50", file)
	l.t.Cleanup(l.silence)
}

// silence ends the server.
func (l *leased) silence() { endPeer(&l.server) }

// endPeer ends what startPeer started, if it runs.
func endPeer(c **lab.Cmd) {
	if *c == nil {
		return
	}
	_ = (*c).Process.Signal(syscall.SIGTERM)
	_ = (*c).Wait() // it was ended
	*c = nil
}

// startPeer runs a program of others, whose output is in the test's log under a name.
func startPeer(t testing.TB, ns *lab.Namespace, as, program string, args ...string) *lab.Cmd {
	t.Helper()
	c := ns.Command(t.Context(), program, args...)
	out := &testLog{t: t, name: as}
	c.Stdout, c.Stderr = out, out
	t.Cleanup(out.close)
	labtest.Must(t, c.Start())
	return c
}

func (l *leased) start(ns *lab.Namespace, applet string, args ...string) *lab.Cmd {
	l.t.Helper()
	return startPeer(l.t, ns, applet, "busybox", append([]string{applet}, args...)...)
}

// renew has the client renew its lease now.
func (l *leased) renew() {
	l.t.Helper()
	labtest.Must(l.t, l.client.Process.Signal(syscall.SIGUSR1))
}

// await waits until the client's last word is this one about that address.
func (l *leased) await(word string, addr netip.Addr) {
	l.t.Helper()
	eventually(l.t, word+" "+addr.String(), func() bool {
		return strings.HasSuffix(l.told(), word+" "+addr.String()+"\n")
	})
}

// told is all that the client's script was called for.
func (l *leased) told() string {
	text, _ := os.ReadFile(filepath.Join(l.dir, "script.log")) // not before the first call
	return string(text)
}

// testLog writes a program's output to a test's log until close.
type testLog struct {
	mu   sync.Mutex
	t    testing.TB
	name string
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		l.t.Logf("%s: %s", l.name, bytes.TrimSpace(b))
	}
	return len(b), nil
}

func (l *testLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t = nil
}
