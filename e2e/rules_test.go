package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"tapgw/api"
	"tapgw/internal/lab"
	"tapgw/internal/lab/labtest"
)

// inGroups is a group of each uplink beside that of both, where everything takes wan1 that no rule sends elsewhere.
const inGroups = preferFirst + `
groups:
  one: {uplinks: [wan1], when_down: refuse}
  two: {uplinks: [wan2], when_down: refuse}
  both: {uplinks: [wan2, wan1=5]}
`

// ruled is a world with rules, over both families.
func ruled(t *testing.T, rules string) world {
	t.Helper()
	w := begin(t, lab.Options{IPv6: true, LANHosts: 2}, inGroups+rules)
	for _, u := range w.Uplinks {
		w.ipv6Is(u.Device, api.StateUp, time.Now())
	}
	for _, f := range []*family{overIPv4, overIPv6} {
		for _, h := range w.Hosts {
			eventually(t, "an answer to the LAN", func() bool { return visitFor(h.Namespace, f.servers[0], 200*time.Millisecond).err == nil })
		}
	}
	return w
}

// probe is a new session: who begins it, where it goes, and how it is marked.
type probe struct {
	from *lab.Host // nil for the gateway itself
	to   int       // server
	dscp int
}

// takes returns the uplink of a new UDP session.
func (w world) takes(f *family, p probe) (device string, err error) {
	ns := w.Gateway
	if p.from != nil {
		ns = p.from.Namespace
	}
	conn, err := ns.ListenPacket(f.udp, f.any)
	labtest.Must(w.t, err)
	defer conn.Close()
	if f == overIPv6 {
		err = ipv6.NewPacketConn(conn).SetTrafficClass(p.dscp << 2)
	} else {
		err = ipv4.NewPacketConn(conn).SetTOS(p.dscp << 2)
	}
	labtest.Must(w.t, err)
	ctx, cancel := context.WithTimeout(w.t.Context(), visitPatience)
	defer cancel()
	outside, err := lab.AskUDP(ctx, conn, f.servers[p.to], "visit")
	for _, u := range w.Uplinks {
		if err == nil && f.own(u) == outside.Addr() {
			return u.Device, nil
		}
	}
	return outside.String(), err
}

// explained returns what `tapgw why` says of a probe.
func (w world) explained(f *family, p probe) api.Why {
	w.t.Helper()
	q := api.Question{Proto: "udp", Remote: netip.AddrPortFrom(f.servers[p.to], lab.PortUDPEcho), DSCP: uint8(p.dscp)}
	if p.from != nil {
		q.From = netip.AddrPortFrom(f.host(p.from), 0)
	}
	why, err := w.client.Why(w.t.Context(), q)
	labtest.Must(w.t, err)
	return why
}

// TestRulesMatch: sessions that a rule matches take its group's uplink, all others the first; `tapgw why` says so before.
func TestRulesMatch(t *testing.T) {
	t.Parallel()
	w := ruled(t, "")
	first, second := w.Hosts[0], w.Hosts[1]
	link, err := second.Handle().LinkByName(lab.DeviceHost)
	labtest.Must(t, err)
	minute := func(d time.Duration) string { return time.Now().Add(d).Format("15:04") }
	for _, c := range []struct {
		name, rule string // in capitals the address of the second host, that of the second server, and the host's hardware address
		matches    []probe
		misses     []probe
	}{
		{"from", "from: [HOST]", []probe{{second, 0, 0}}, []probe{{first, 0, 0}, {nil, 0, 0}}},
		{"to", "to: [SERVER]", []probe{{first, 1, 0}, {nil, 1, 0}}, []probe{{first, 0, 0}}},
		{"set", "to: [theirs]", []probe{{first, 1, 0}}, []probe{{first, 0, 0}}},
		{"port", "ports: [7000-7002], protocols: [udp]", []probe{{first, 0, 0}}, nil},
		{"another port", "ports: [7001]", nil, []probe{{first, 0, 0}}},
		{"another protocol", "protocols: [tcp, icmp]", nil, []probe{{first, 0, 0}}},
		{"dscp", "dscp: [ef]", []probe{{first, 0, 46}, {nil, 0, 46}}, []probe{{first, 0, 0}, {first, 0, 34}}},
		{"interface", "interface: [lan0]", []probe{{first, 0, 0}, {second, 0, 0}}, []probe{{nil, 0, 0}}},
		{"another interface", "interface: [lan1]", nil, []probe{{first, 0, 0}}},
		{"mac", "mac: ['MAC']", []probe{{second, 0, 0}}, []probe{{first, 0, 0}, {nil, 0, 0}}},
		{"now", "times: ['" + minute(-time.Hour) + "-" + minute(time.Hour) + "']", []probe{{first, 0, 0}}, nil},
		{"later", "times: ['" + minute(time.Hour) + "-" + minute(2*time.Hour) + "']", nil, []probe{{first, 0, 0}}},
	} {
		for _, f := range []*family{overIPv4, overIPv6} {
			name := c.name + " over " + f.name
			rule := strings.NewReplacer("HOST", f.host(second).String(), "SERVER", f.servers[1].String(), "MAC", link.Attrs().HardwareAddr.String()).Replace(c.rule)
			w.use(inGroups + fmt.Sprintf("sets: {theirs: [%s]}\nrules: [{name: %s, %s, use: two}]\n", f.servers[1], strings.ReplaceAll(c.name, " ", "-"), rule))
			for device, probes := range map[string][]probe{"wan2": c.matches, "wan1": c.misses} {
				for _, p := range probes {
					why := w.explained(f, p)
					if why.Uplink != device || (why.Rule != "") != (device == "wan2") || why.Host != (p.from == nil) {
						t.Errorf("%s: explained as %+v, want %s", name, why, device)
					}
					if got, err := w.takes(f, p); err != nil || got != device {
						t.Errorf("%s: took %s, want %s: %v", name, got, device, err)
					}
				}
			}
		}
	}
}

// TestRulesGroupDown: what becomes of new sessions whose group has no uplink left, by what the rule says.
func TestRulesGroupDown(t *testing.T) {
	t.Parallel()
	w := ruled(t, "rules: [{use: two}]\n")
	since := time.Now()
	labtest.Must(t, w.Uplinks[1].Link.Cut())
	w.events.state("wan2", api.StateDown, since)
	for _, c := range []struct{ rule, uplink, group string }{
		{"use: two, when_down: one", "wan1", "one"}, {"use: two, when_down: any", "wan1", "all"}, {"use: both", "wan1", "both"}, {"use: two", "", "two"},
	} {
		w.use(inGroups + "rules: [{" + c.rule + "}]\n")
		for _, f := range []*family{overIPv4, overIPv6} {
			p := probe{w.Hosts[0], 0, 0}
			why := w.explained(f, p)
			if why.Uplink != c.uplink || why.Group != c.group || (c.uplink == "") != (why.Outcome == api.OutcomeRefused) {
				t.Errorf("%s over %s: explained as %+v", c.rule, f.name, why)
			}
			if c.uplink == "" {
				w.expectRefused(f)
			} else if got, err := w.takes(f, p); err != nil || got != c.uplink {
				t.Errorf("%s over %s: took %s: %v", c.rule, f.name, got, err)
			}
		}
	}
}

// expectRefused: applications are told at once.
func (w world) expectRefused(f *family) {
	w.t.Helper()
	begun := time.Now()
	_, err := w.lan.Dial(labtest.Context(w.t), "tcp", netip.AddrPortFrom(f.servers[0], lab.PortTCPEcho).String())
	if took := time.Since(begun); !errors.Is(err, syscall.ECONNREFUSED) || took > time.Second {
		w.t.Errorf("TCP over %s: %v after %s", f.name, err, took)
	}
	conn, err := w.lan.Dial(labtest.Context(w.t), "udp", netip.AddrPortFrom(f.servers[0], lab.PortUDPEcho).String())
	labtest.Must(w.t, err)
	defer conn.Close()
	labtest.Must(w.t, conn.SetDeadline(begun.Add(patience)))
	_, err = conn.Write([]byte("x"))
	labtest.Must(w.t, err)
	var network net.Error
	if _, err := conn.Read(make([]byte, 9)); err == nil || errors.As(err, &network) && network.Timeout() {
		w.t.Errorf("UDP over %s was not refused: %v", f.name, err)
	}
}

// TestRulesOfAReload: sessions that there are go on as they are, new ones follow the new rules.
func TestRulesOfAReload(t *testing.T) {
	t.Parallel()
	w := ruled(t, "")
	c := w.connect(w.lan, "wan1")
	w.use(inGroups + "rules: [{name: new, protocols: [tcp], use: two}]\n")
	labtest.Must(t, c.talk())
	if s, ok := w.session("tcp", portOf(c)); !ok || s.Uplink != "wan1" || s.Rule != "" || s.Reason == "" {
		t.Errorf("the session of before is %+v", s)
	}
	d := w.connect(w.lan, "wan2")
	if s, ok := w.session("tcp", portOf(d)); !ok || s.Rule != "new" {
		t.Errorf("the new session is %+v", s)
	}
	w.use(inGroups)
	labtest.Must(t, d.talk())
	if s, ok := w.session("tcp", portOf(d)); !ok || s.Rule != "new" || s.Uplink != "wan2" {
		t.Errorf("without the rule, its session is %+v", s)
	}
	w.write(inGroups + "rules: [{use: three}]\n")
	if out, status := w.tapgw("reload"); status == 0 || !strings.Contains(out, "three") {
		t.Errorf("a wrong rule: status %d, %s", status, out)
	}
}

// TestRulesWhyAgrees: for many sessions, what `tapgw why` says is what then happens, with schedulers that take turns.
func TestRulesWhyAgrees(t *testing.T) {
	t.Parallel()
	w := ruled(t, "")
	w.use(`
policy: {scheduler: round-robin, stickiness: session}
uplinks: [{interface: wan1}, {interface: wan2}]
groups: {two: {uplinks: [wan2]}, turns: {uplinks: [wan1, wan2], scheduler: weighted}}
rules:
  - {name: low, ports: [9000-9100], use: two}
  - {name: mid, ports: [9101-9200], use: turns}
  - {name: some, from: [10.0.0.0/25], dscp: [0], ports: [9201-9250], use: turns, scheduler: failover}
`)
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		h, f := w.Hosts[random.IntN(2)], []*family{overIPv4, overIPv6}[random.IntN(2)]
		conn, err := h.ListenPacket(f.udp, f.any)
		labtest.Must(t, err)
		for i, server := range f.servers {
			outcome := w.expectExplained(conn, f.host(h), netip.AddrPortFrom(server, uint16(9000+random.IntN(300))))
			if i > 0 && outcome != api.OutcomeMapping {
				t.Errorf("session %d of an endpoint: %s", i, outcome)
			}
		}
		labtest.Must(t, conn.Close())
	}
	out, status := w.tapgw("why", "203.0.113.1:9150", "--from", "10.77.0.1")
	if status != 1 || !strings.Contains(out, "10.77.0.1 is not behind this host") {
		t.Errorf("an unknown client: status %d, %s", status, out)
	}
	if out, status := w.tapgw("why", "203.0.113.1:9150", "--proto", "udp"); status != 0 || !strings.Contains(out, "rule 2 mid: matches") || !strings.Contains(out, "<- chosen") {
		t.Errorf("status %d, %s", status, out)
	}
}

// expectExplained asks what would become of a session, begins it, fails the test unless that is what happened, and returns it.
func (w world) expectExplained(conn net.PacketConn, from netip.Addr, to netip.AddrPort) (outcome string) {
	w.t.Helper()
	port := local(conn).Port()
	why, err := w.client.Why(w.t.Context(), api.Question{Proto: "udp", Remote: to, From: netip.AddrPortFrom(from, port)})
	labtest.Must(w.t, err)
	_, err = conn.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(to))
	labtest.Must(w.t, err)
	var s api.Session
	eventually(w.t, "a session", func() bool {
		list, err := w.client.Sessions(w.t.Context(), api.Filter{Proto: "udp", Inside: from})
		labtest.Must(w.t, err)
		i := slices.IndexFunc(list, func(s api.Session) bool { return s.Inside.Port() == port && s.Remote == to })
		if i >= 0 {
			s = list[i]
		}
		return i >= 0
	})
	placedBy := why.Rule
	if why.Outcome == api.OutcomeMapping { // whatever rule matches, the endpoint's mapping stays
		placedBy = ""
	}
	if s.Uplink != why.Uplink || s.Rule != placedBy || s.Reason != why.Reason {
		w.t.Errorf("%s to %s is %+v, explained as %+v", s.Inside, to, s, why)
	}
	return why.Outcome
}

// TestRulesDirect: what such a rule matches keeps its address, by the ports that it names, and the answers come back; all else is
// translated.
func TestRulesDirect(t *testing.T) {
	t.Parallel()
	w := begin(t, lab.Options{LANHosts: 2}, preferFirst)
	w.meetLAN()
	for _, u := range w.Uplinks {
		route(t, u.ISP, lanNet, u.Addr())
	}
	route(t, w.Internet, lanNet, backboneOf(w.Uplinks[0]))
	own := func(h *lab.Host) netip.Addr { return h.Addr }
	first := func(*lab.Host) netip.Addr { return w.Uplinks[0].Addr() }
	for _, c := range []struct {
		rule          string
		second, there func(*lab.Host) netip.Addr // how the second host is seen by the first server, and the first host by the second one
	}{
		{"from: [SECOND]", own, first},
		{"to: [THERE], ports: [7002]", first, own},
		{"from: [SECOND], to: [THERE]", first, first},
	} {
		w.use(preferFirst + "rules: [{" + strings.NewReplacer("SECOND", w.Hosts[1].Addr.String(), "THERE", lab.ServerAddrs[1].String()).Replace(c.rule) +
			", name: own, direct: true}]\n")
		for _, v := range []struct {
			from *lab.Host
			to   int
			want netip.Addr
		}{{w.Hosts[0], 0, first(nil)}, {w.Hosts[1], 0, c.second(w.Hosts[1])}, {w.Hosts[0], 1, c.there(w.Hosts[0])}, {w.Hosts[1], 1, w.Hosts[1].Addr}} {
			if got := visitFor(v.from.Namespace, lab.ServerAddrs[v.to], visitPatience); got.err != nil || got.outside != v.want {
				t.Errorf("%s: %s was seen by server %d as %s, want %s: %v", c.rule, v.from.Name(), v.to, got.outside, v.want, got.err)
			}
		}
	}
}
