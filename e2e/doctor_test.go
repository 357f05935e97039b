package e2e

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"tapgw/internal/doctor"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// findings are those of a doctor, by check.
type findings map[string]doctor.Finding

// examined runs a command that ends in `tapgw doctor --json`, and compares its exit status with what it says.
func examined(t *testing.T, cmd *lab.Cmd) findings {
	t.Helper()
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var answer struct {
		Level  doctor.Level
		Checks []doctor.Finding
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	status := map[doctor.Level]int{doctor.OK: 0, doctor.Warn: 1, doctor.Fail: 2}[answer.Level]
	if got := cmd.ProcessState.ExitCode(); got != status || answer.Level != doctor.Worst(answer.Checks) {
		t.Errorf("exit status %d, level %s", got, answer.Level)
	}
	found := findings{}
	for _, f := range answer.Checks {
		found[f.Check] = f
	}
	return found
}

// examine looks at a host whose daemon, if any, has that socket.
func examine(t *testing.T, ns *lab.Namespace, socket string) findings {
	t.Helper()
	return examined(t, ns.Command(t.Context(), binary(t), "doctor", "--json", "--socket", socket, "--config", "/nonexistent/tapgw.yaml"))
}

func (f findings) expect(t *testing.T, check string, level doctor.Level, says string) {
	t.Helper()
	if got := f[check]; got.Level != level || !strings.Contains(got.Message+" "+got.Advice, says) {
		t.Errorf("%s is %+v, want %s: %s", check, got, level, says)
	}
}

// ill is a host in a bad state, and what a doctor is to say of it.
type ill struct {
	name    string
	options lab.Options
	spoil   func(t *testing.T, at *lab.Topology)
	check   string
	level   doctor.Level
	says    string
}

func linkOf(t testing.TB, ns *lab.Namespace, device string) netlink.Link {
	t.Helper()
	l, err := ns.Handle().LinkByName(device)
	labtest.Must(t, err)
	return l
}

// illRoutes are bad states of addresses, routes and rules.
var illRoutes = []ill{
	{"metric 0", lab.Options{}, func(t *testing.T, at *lab.Topology) {
		wan := at.Uplinks[0]
		labtest.Must(t, at.Gateway.Handle().RouteAdd(&netlink.Route{LinkIndex: linkOf(t, at.Gateway, wan.Device).Attrs().Index, Gw: wan.NextHop().AsSlice()}))
	}, "default-route", doctor.Warn, "wan1 (metric 0)"},
	{"no uplink", lab.Options{}, func(t *testing.T, at *lab.Topology) {
		for _, u := range at.Uplinks {
			labtest.Must(t, u.RemoveDefault())
		}
	}, "uplinks", doctor.Fail, "no uplink"},
	{"same subnet", lab.Options{Uplinks: []lab.UplinkOptions{{}, {Twin: 1}}}, nil, "subnets", doctor.Warn, "wan1 and wan2"},
	{"same router", lab.Options{}, func(t *testing.T, at *lab.Topology) {
		for _, u := range at.Uplinks {
			labtest.Must(t, at.Gateway.Handle().NeighSet(&netlink.Neigh{LinkIndex: linkOf(t, at.Gateway, u.Device).Attrs().Index,
				IP: u.NextHop().AsSlice(), State: netlink.NUD_REACHABLE, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 9, 9}}))
		}
	}, "gateways", doctor.Warn, "wan1 and wan2"},
	{"overlap", lab.Options{}, func(t *testing.T, at *lab.Topology) {
		bridge := netlink.NewLinkAttrs()
		bridge.Name = "docker0"
		labtest.Must(t, at.Gateway.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: bridge}))
		subnet := at.Uplinks[1].Link.Near.Prefix
		labtest.Must(t, at.Gateway.Handle().AddrAdd(linkOf(t, at.Gateway, "docker0"), &netlink.Addr{IPNet: &net.IPNet{
			IP: subnet.Masked().Addr().AsSlice(), Mask: net.CIDRMask(subnet.Bits(), 32)}}))
	}, "overlaps", doctor.Fail, "on wan2 and docker0"},
	{"rules of others", lab.Options{}, rule(100, 42), "rules", doctor.Warn, "100: lookup 42"},
	{"rules of Tailscale", lab.Options{}, rule(5270, 52), "rules", doctor.OK, "Tailscale"},
}

// rule adds a routing rule.
func rule(priority, table int) func(*testing.T, *lab.Topology) {
	return func(t *testing.T, at *lab.Topology) {
		r := netlink.NewRule()
		r.Priority, r.Table, r.Family = priority, table, netlink.FAMILY_V4
		labtest.Must(t, at.Gateway.Handle().RuleAdd(r))
	}
}

// illLinks are bad states of devices, and of the firewall.
var illLinks = []ill{
	{"strict filters", lab.Options{RPFilter: 1}, nil, "rp_filter", doctor.OK, "strict on wan1, wan2"},
	{"small MTU", lab.Options{Uplinks: []lab.UplinkOptions{{MTU: 1200}, {}}}, nil, "mtu", doctor.Warn, "wan1 (1200)"},
	{"no offload", lab.Options{Offloads: &lab.Offloads{}}, nil, "offloads", doctor.Warn, "wan1, wan2"},
	{"deaf", lab.Options{IPv6: true}, func(t *testing.T, at *lab.Topology) {
		for _, name := range []string{"forwarding", "accept_ra"} {
			labtest.Must(t, at.Gateway.Sysctl("net/ipv6/conf/wan2/"+name, "1"))
		}
	}, "accept_ra", doctor.OK, "wan2 forward"},
	{"firewall", lab.Options{}, forwardDrops("filter", "forward"), "firewall", doctor.Warn, "filter forward"},
	{"Docker", lab.Options{}, forwardDrops("filter", "FORWARD", "DOCKER-USER"), "firewall", doctor.Warn, "DOCKER-USER -i lan0"},
	{"ufw", lab.Options{}, forwardDrops("filter", "FORWARD", "ufw-user-forward"), "firewall", doctor.Warn, "ufw route allow in on lan0"},
	{"firewalld", lab.Options{}, forwardDrops("firewalld", "filter_FORWARD"), "firewall", doctor.Warn, "firewall-cmd"},
	{"none", lab.Options{}, nil, "firewall", doctor.OK, ""},
}

// forwardDrops adds a chain that drops forwarded packets by default, and others beside it.
func forwardDrops(table, chain string, beside ...string) func(*testing.T, *lab.Topology) {
	return func(t *testing.T, at *lab.Topology) {
		c, err := nftables.New(nftables.WithNetNSFd(at.Gateway.FD()))
		labtest.Must(t, err)
		drop := nftables.ChainPolicyDrop
		to := c.AddTable(&nftables.Table{Name: table, Family: nftables.TableFamilyIPv4})
		c.AddChain(&nftables.Chain{Name: chain, Table: to, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
			Priority: nftables.ChainPriorityFilter, Policy: &drop})
		for _, name := range beside {
			c.AddChain(&nftables.Chain{Name: name, Table: to})
		}
		labtest.Must(t, c.Flush())
	}
}

// TestDoctorNamesIt: without a daemon, bad states of the host are named.
func TestDoctorNamesIt(t *testing.T) {
	t.Parallel()
	for _, c := range append(illRoutes, illLinks...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			topology := labtest.Build(t, c.options)
			labtest.Servers(t, topology)
			_, err := topology.Hosts[0].Ping(labtest.Context(t), lab.GatewayLANAddr) // makes the LAN known
			labtest.Must(t, err)
			if c.spoil != nil {
				c.spoil(t, topology)
			}
			found := examine(t, topology.Gateway, "/nonexistent/s")
			found.expect(t, c.check, c.level, c.says)
			found.expect(t, "daemon", doctor.Warn, "sudo tapgw run")
		})
	}
}

// TestDoctorBesideTheDaemon: a healthy gateway has nothing that fails, and what breaks is named.
func TestDoctorBesideTheDaemon(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{RPFilter: 1}, "")
	found := examine(t, w.Gateway, w.socket())
	for check, f := range found {
		if f.Level == doctor.Fail {
			t.Errorf("%s: %+v", check, f)
		}
	}
	for check, says := range map[string]string{
		"daemon": "answers", "forwarding": "on for lan0", "rp_filter": "loose", "dns": "by all", "health": "", "default-route": "none",
	} {
		found.expect(t, check, doctor.OK, says)
	}
	labtest.Must(t, w.Uplinks[1].Silence(true))
	w.awaitState("wan2", "down")
	found = examine(t, w.Gateway, w.socket())
	found.expect(t, "health", doctor.Warn, "wan2 down")
	found.expect(t, "dns", doctor.Warn, "wan2")
	out, status := w.tapgw("doctor")
	if status != 1 || !strings.Contains(out, "wan2 down\n    tapgw status\n") {
		t.Errorf("exit status %d: %s", status, out)
	}
}

// openToAll lets every user reach the socket.
func (g *gateway) openToAll() {
	g.t.Helper()
	for dir := g.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		labtest.Must(g.t, os.Chmod(dir, 0o755))
	}
}

// TestDoctorWithoutRoot says what it could not look at.
func TestDoctorWithoutRoot(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{}, "")
	program := copyForAll(t, binary(t))
	w.openToAll()
	cmd := w.Gateway.Command(t.Context(), program, "doctor", "--json", "--socket", w.socket())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	found := examined(t, cmd)
	found.expect(t, "privileges", doctor.Unknown, "sudo tapgw doctor")
	found.expect(t, "firewall", doctor.Unknown, "only root")
	found.expect(t, "uplinks", doctor.OK, "wan1, wan2")
	found.expect(t, "daemon", doctor.OK, "answers")
}

// TestDoctorInAContainer: what a mount namespace hides or replaces.
func TestDoctorInAContainer(t *testing.T) {
	t.Parallel()
	topology := labtest.Build(t, lab.Options{})
	labtest.Servers(t, topology)
	counts := t.TempDir()
	for name, value := range map[string]string{"count": "262144\n", "max": "262144\n", "most": "250000\n"} {
		labtest.Must(t, os.WriteFile(filepath.Join(counts, name), []byte(value), 0o644))
	}
	const conntrack = "/proc/sys/net/netfilter/nf_conntrack_"
	replace := func(name, with string) string {
		return "mount --bind " + filepath.Join(counts, with) + " " + conntrack + name
	}
	for _, c := range []struct {
		name, mounts, check string
		level               doctor.Level
		says                string
	}{
		{"no TUN", "mount -t tmpfs none /dev/net", "tun", doctor.Fail, "modprobe tun"},
		{"full", replace("count", "count") + " && " + replace("max", "max"), "conntrack", doctor.Fail, "nf_conntrack_max=1048576"},
		{"nearly full", replace("count", "most") + " && " + replace("max", "max"), "conntrack", doctor.Warn, "250000 of 262144"},
	} {
		t.Run(c.name, func(t *testing.T) {
			script := c.mounts + ` && exec "$0" doctor --json --socket /nonexistent/s`
			cmd := topology.Gateway.Command(t.Context(), "unshare", "--mount", "sh", "-c", script, binary(t))
			examined(t, cmd).expect(t, c.check, c.level, c.says)
		})
	}
}
